"""Trains or evaluates: `python -m magnifier_jax.main --config=configs/cuhk03.py`."""

import logging as python_logging
import os
import sys
import traceback
import warnings
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from magnifier_jax.command_line.console import (
  leave_at_once,
  print_without_failing,
  silence_libraries,
)
from magnifier_jax.config_argument import last_line, normalized
from magnifier_jax.devices.failure import end_run, is_loss_of_a_process
from magnifier_jax.devices.host_memory import restart_with_huge_pages
from magnifier_jax.devices.joining import TIMEOUT_S, connect_devices, join
from magnifier_jax.devices.preemption import EXIT_CODE, Preempted, Preemption
from magnifier_jax.devices.processes import CLUSTERS, Launch
from magnifier_jax.errors import UserError
from magnifier_jax.files.disk_space import DiskFullError
from magnifier_jax.files.user_path import user_path

# TensorFlow only decodes images here; what it has to say about its own kernels helps nobody.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

_CONFIG = config_flags.DEFINE_config_file(
  "config", help_string="Config file, with its variant after a colon.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder for checkpoints and results. Default: runs/<config name>."
)
_MODE = flags.DEFINE_enum(
  "mode", "train", ["train", "evaluate"], "Train and evaluate, or evaluate what a workdir holds."
)
_CLUSTER = flags.DEFINE_enum(
  "cluster", "auto", CLUSTERS, "What started the processes of this run; auto: see the environment."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes of this run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
_INITIALIZATION_TIMEOUT = flags.DEFINE_integer(
  "initialization_timeout",
  TIMEOUT_S,
  "Seconds to wait for the other processes of this run.",
  lower_bound=1,
)
_COMPILATION_CACHE = flags.DEFINE_string(
  "compilation_cache",
  None,
  "Folder that keeps what is compiled for later runs, or none. Default: "
  "$JAX_COMPILATION_CACHE_DIR, or magnifier_jax/xla in ~/.cache.",
)


def main(argv: list[str], preemption: Preemption) -> None:
  """Validates the config, then trains or evaluates."""
  from magnifier_jax.config import Config, ConfigError

  if len(argv) > 1:
    raise ConfigError(f"unexpected argument {argv[1]!r}; options look like --config.field=value")
  if _CONFIG.value is None:
    raise ConfigError("--config: missing; for example --config=configs/synthetic.py")
  if "://" in (_WORKDIR.value or ""):
    raise ConfigError(
      f"--workdir: {_WORKDIR.value} is not a folder; mount it, as launch/README.md says, and name "
      "the folder"
    )
  if _WORKDIR.value == "None":
    raise ConfigError("--workdir: None is no folder; leave the flag out for runs/<config name>")
  try:
    config = Config.from_config_dict(_CONFIG.value)
  except OSError as error:  # config_flags reports a file that it cannot read at its first use
    raise ConfigError(f"--config: {last_line(error)}") from error
  if config.dtype == "float64":
    import jax

    jax.config.update("jax_enable_x64", True)
  launch = Launch(_CLUSTER.value, _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  join(launch, _INITIALIZATION_TIMEOUT.value)
  preemption.listen()  # again: joining other processes installs a handler of JAX's
  from magnifier_jax.devices.compilation_cache import use_compilation_cache

  use_compilation_cache(_COMPILATION_CACHE.value)
  connect_devices()
  workdir = user_path(_WORKDIR.value or f"runs/{config.name}")
  if _MODE.value == "train":
    from magnifier_jax.train import train

    train(config, workdir, preemption)
  else:
    from magnifier_jax.evaluate import evaluate_run

    evaluate_run(config, workdir)


def _parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; a bad config file, field or value is one line, not a traceback."""
  try:
    return flags.FLAGS(normalized(flags.FLAGS.read_flags_from_files(argv, force_gnu=False)))
  except UserError as error:
    _exit(f"error: {error}")
  except flags.Error as error:
    message = str(error)
    _exit(f"error: {last_line(error) if 'Traceback' in message else message}")
  except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    # config_flags lets these through when it loads the file and sets the fields.
    _exit(f"error: --config: {last_line(error)}")


def _exit(message: str, code: int = 2) -> NoReturn:
  end_run(code, message)
  print(message, file=sys.stderr)
  sys.exit(code)


_LOST_A_PROCESS = (
  "another process of this run is gone; its output says why, where it could. The same command goes "
  "on from the last checkpoint"
)


def _run(argv: list[str]) -> None:
  preemption = Preemption()
  preemption.listen()
  try:
    main(argv, preemption)
  except DiskFullError as error:
    end_run(2, f"error: {error}")
    leave_at_once(f"error: {error}", 2)
  except UserError as error:
    _exit(f"error: {error}")
  except Preempted as end:
    print(end, file=sys.stderr)
    sys.exit(EXIT_CODE)
  except KeyboardInterrupt:
    _exit("interrupted; the same command goes on from the last checkpoint", 130)
  except Exception as error:
    code, message = 1, traceback.format_exc()
    if is_loss_of_a_process(error):
      # One that had nothing to save leaves at SIGTERM, while another may have begun an update.
      code, message = EXIT_CODE if preemption.received else 1, _LOST_A_PROCESS
    end_run(code, message, may_be_a_consequence=True)
    raise


def cli() -> None:
  """Entry point."""
  restart_with_huge_pages()
  print_without_failing()
  silence_libraries()
  warnings.filterwarnings("ignore", module="tensorflow")
  python_logging.getLogger().setLevel(python_logging.WARNING)
  logging.set_verbosity(logging.WARNING)
  app.run(_run, flags_parser=_parse_flags)


if __name__ == "__main__":
  cli()
