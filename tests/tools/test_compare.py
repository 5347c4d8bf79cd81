"""Runs beside one another and beside the published numbers."""

import html.parser
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from magnifier_jax.comparison.output_files import write_comparison
from magnifier_jax.comparison.run_results import CompareError
from magnifier_jax.comparison.runs import compare
from magnifier_jax.comparison.tables import as_json, as_markdown, as_text, switches
from magnifier_jax.errors import UserError
from magnifier_jax.interop.weights_file import write_weights
from magnifier_jax.tools import convert
from magnifier_jax.tools.compare import cli, main
from magnifier_jax.workdir.metrics_log import MetricsFileError
from tests.full_disk import full_disk
from tests.interop.small_network import small_network
from tests.tools.evaluated_runs import accuracies, small, write_run

TWO_SEEDS = {0: accuracies(0.10, 0.20), 1: accuracies(0.16, 0.24)}


@pytest.fixture
def two_seeds(tmp_path: Path) -> list[Path]:
  """Two runs of the whole network, the later seed first."""
  return [
    write_run(tmp_path / f"seed{seed}", small(seed=seed), {"all": TWO_SEEDS[seed]}, untrained=0.01)
    for seed in (1, 0)
  ]


def cells(text: str, row: str) -> list[str]:
  """The cells of the first Markdown row that starts so."""
  line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
  return [cell.strip() for cell in line.strip("|").split("|")]


def test_mean_and_sample_standard_deviation_over_seeds(two_seeds: list[Path]):
  [comparison] = compare(two_seeds)
  [group] = comparison.groups
  assert group.seeds == (0, 1)
  mean, spread, values = group.statistic("all", "mAP")
  assert values == (0.20, 0.24)
  assert mean == pytest.approx(0.22)
  assert spread == pytest.approx(0.04 / math.sqrt(2))  # n − 1 = 1 in the denominator
  assert cells(as_markdown([comparison]), "cuhk03_small") == [
    *("cuhk03_small", "0, 1", "80", "1.0 ± 0.0"),
    *("13.0 ± 4.2", "82.4", "−69.4"),
    *("22.0 ± 2.8", "79.6", "−57.6"),
  ]


def test_thresholds_are_no_row_of_results(tmp_path: Path):
  thresholds = {"calibrated_on": "them", "flip": False, "whole": []}
  rows = {"all": TWO_SEEDS[0], "thresholds": thresholds}
  [comparison] = compare([write_run(tmp_path, small(), rows)])
  assert comparison.rows == ["all"]


def test_a_single_seed_has_no_spread(two_seeds: list[Path]):
  [comparison] = compare(two_seeds[:1])
  assert cells(as_markdown([comparison]), "cuhk03_small")[4] == "16.0"
  values = as_json([comparison])["test_sets"][0]["groups"][0]["results"]["all"]["rank1"]
  assert values == {"mean": 0.16, "spread": None, "values": [0.16]}


@pytest.mark.parametrize(
  ("variant", "published"),
  [
    ("baseline", ("69.8", "67.4")),
    ("part_segmentation", ("71.3", "69.0")),
    ("adversarial", ("76.6", "74.6")),
    ("fusion", ("77.4", "75.9")),
    ("no_diversity", ("–", "–")),
    ("all", ("82.4", "79.6")),
    ("paper", ("82.4", "79.6")),
    ("all,detected", ("–", "–")),
  ],
)
def test_each_variant_stands_beside_its_own_published_row(
  tmp_path: Path, variant: str, published: tuple[str, str]
):
  config = small(variant)
  write_run(tmp_path, config, {"all": accuracies(0.5, 0.5)})
  row = cells(as_markdown(compare([tmp_path])), config.name)
  assert (row[5], row[8]) == published


def test_a_diversity_loss_that_never_starts_is_not_the_published_network(tmp_path: Path):
  config = small(training__num_epochs=4)  # it starts in epoch 7
  write_run(tmp_path, config, {"all": accuracies(0.5, 0.5)})
  assert cells(as_markdown(compare([tmp_path])), config.name)[5] == "–"


def test_branches_and_reranked_results_are_shown(tmp_path: Path):
  rows = {
    "all": accuracies(0.5, 0.4),
    "all, re-ranked": accuracies(0.6, 0.55),
    "global": accuracies(0.3, 0.35),
    "fusion": accuracies(0.1, 0.15),
  }
  write_run(tmp_path, small("fusion"), rows)
  [comparison] = compare([tmp_path])
  assert comparison.rows == ["global", "fusion", "all", "all, re-ranked"]
  lines = [line.split() for line in as_text([comparison]).splitlines()]
  assert ["cuhk03_small_fusion", "35.0", "15.0", "40.0", "55.0"] in lines  # mAP
  assert ["cuhk03_small_fusion", "30.0", "10.0", "50.0", "60.0"] in lines  # rank-1


def test_another_budget_or_setting_is_another_row(tmp_path: Path):
  rows = {"all": accuracies(0.5, 0.5)}
  runs = [
    write_run(tmp_path / "a", small(), rows),
    write_run(tmp_path / "b", small(seed=1, training__num_epochs=7), rows),
    write_run(tmp_path / "c", small(seed=2, evaluation__flip=True), rows),
    write_run(tmp_path / "d", small(seed=3, data__num_workers=3, name="elsewhere"), rows),
  ]
  [comparison] = compare(runs)
  assert [group.name for group in comparison.groups] == [
    "cuhk03_small",
    "cuhk03_small (step: 70)",
    "cuhk03_small (evaluation.flip: True)",
  ]
  assert comparison.groups[0].seeds == (0, 3)


def test_an_evaluation_with_mirror_images_counts_as_one(tmp_path: Path):
  write_run(tmp_path, small(), {"all": accuracies(0.5, 0.5)})
  metrics = json.loads((tmp_path / "metrics.json").read_text())
  (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"flip": True}))
  [comparison] = compare([tmp_path])
  assert comparison.groups[0].config["evaluation"]["flip"] is True


def test_data_sets_have_tables_of_their_own(two_seeds: list[Path], tmp_path: Path):
  rows = {"all": accuracies(0.5, 0.5)}
  other = write_run(tmp_path / "other", small(data__dataset="market1501"), rows)
  held_back = write_run(tmp_path / "held", small(data__validation_people=50), rows)
  comparisons = compare([*two_seeds, other, held_back])
  assert [comparison.dataset for comparison in comparisons] == [
    "cuhk03_np/labeled",
    "market1501",
    "cuhk03_np/labeled, 50 validation people",
  ]
  assert as_markdown(comparisons).count("The whole embedding") == 3
  with pytest.raises(CompareError, match="a picture shows one test set"):
    write_comparison(comparisons, tmp_path / "picture.svg")


def write_metrics(workdir: Path, **values: object) -> None:
  """Changes `metrics.json` as another evaluation of the run does."""
  path = workdir / "metrics.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_validation_people_stand_beside_nothing_published(tmp_path: Path):
  rows = {"all": accuracies(0.5, 0.5)}
  write_run(tmp_path, small(data__validation_people=50), rows)
  row = cells(as_markdown(compare([tmp_path])), "cuhk03_small")
  assert (row[5], row[8]) == ("–", "–")
  [group] = as_json(compare([tmp_path]))["test_sets"][0]["groups"]
  assert (group["published_row"], group["published"]) == (None, None)


def test_a_run_is_of_the_people_whom_it_was_evaluated_on(tmp_path: Path):
  """Training with validation people and a test at the end leave one config.json."""
  write_run(tmp_path, small(data__validation_people=50), {"all": accuracies(0.5, 0.5)})
  write_metrics(tmp_path, validation_people=0)
  [comparison] = compare([tmp_path])
  assert comparison.dataset == "cuhk03_np/labeled"
  assert cells(as_markdown([comparison]), "cuhk03_small")[5] == "82.4"
  [found] = switches(comparison)
  assert "data.validation_people: 50 (the authors: 0)" in found.settings


def test_a_checkpoint_that_the_test_people_chose_is_a_row_that_says_so(tmp_path: Path):
  rows = {"all": accuracies(0.5, 0.5)}
  runs = [write_run(tmp_path / name, small(seed=i), rows) for i, name in enumerate("ab")]
  write_metrics(runs[1], checkpoint_chosen_on="test people")
  [comparison] = compare(runs)
  name = "cuhk03_small (checkpoint chosen on: test people)"
  assert [group.name for group in comparison.groups] == ["cuhk03_small", name]
  assert f"The test people chose the checkpoint of {name}." in as_text([comparison])
  _, own = switches(comparison)
  assert own.settings == ["evaluation.checkpoint: best (the authors: latest)"]


def test_a_record_with_published_numbers_of_its_own_is_one_of_today(two_seeds: list[Path]):
  path = two_seeds[0] / "config.json"
  record = json.loads(path.read_text())
  record["config"] |= {"published": {"all": {"rank1": 1, "mAP": 1}}, "published_source": "there"}
  path.write_text(json.dumps(record))
  [comparison] = compare(two_seeds)
  [group] = comparison.groups
  assert cells(as_markdown([comparison]), group.name)[5] == "82.4"


def test_shared_switches_are_said_once(tmp_path: Path):
  rows = {"all": accuracies(0.5, 0.5)}
  runs = [write_run(tmp_path / name, small(name), rows) for name in ("all", "adversarial")]
  shared, own = (found.line() for found in switches(compare(runs)[0]))
  assert shared.startswith(
    "all runs differ from the authors' code in: model.backbone: resnet18 (the"
  )
  assert own == (
    "cuhk03_small_adversarial differs moreover in: model.fusion_branch: False (the authors: True)"
  )


def test_a_field_that_an_old_record_lacks_is_said_to_be(tmp_path: Path):
  write_run(tmp_path, small(), {"all": accuracies(0.5, 0.5)})
  record = json.loads((tmp_path / "config.json").read_text())
  del record["config"]["init"]
  (tmp_path / "config.json").write_text(json.dumps(record))
  [found] = switches(compare([tmp_path])[0])
  assert "init.backbone: not recorded (the authors: imagenet)" in found.settings


def test_what_was_not_measured_is_null_and_a_dash(tmp_path: Path):
  write_run(tmp_path, small(), {"all": accuracies(math.nan, math.nan)})
  comparisons = compare([tmp_path])
  row = cells(as_markdown(comparisons), "cuhk03_small")
  assert row[3:] == ["–", *("–", "82.4", "–"), *("–", "79.6", "–")]
  assert json.loads(json.dumps(as_json(comparisons), allow_nan=False))
  write_comparison(comparisons, tmp_path / "page.html")


def test_a_converted_checkpoint_needs_no_record_beside_it(tmp_path: Path):
  weights = tmp_path / "weights.safetensors"
  write_weights(weights, small_network(num_people=3).state_dict)
  workdir = tmp_path / "converted"
  convert.main(["--config=configs/cuhk03.py:small", f"--from={weights}", f"--to={workdir}"])
  with pytest.raises(CompareError, match="no results there; train the run, or evaluate it"):
    compare([workdir])
  metrics = {"config": "cuhk03_small", "step": 0, "flip": False, "all": accuracies(0.5, 0.5)}
  (workdir / "metrics.json").write_text(json.dumps(metrics))
  [group] = compare([workdir])[0].groups
  assert (group.name, group.step) == ("cuhk03_small", 0)
  [origin] = as_json(compare([workdir]))["test_sets"][0]["groups"][0]["initial_weights"]
  assert len(origin["sha256"]) == 64


@pytest.mark.parametrize(
  ("file", "content", "error", "message"),
  [
    ("metrics.json", None, CompareError, r"metrics\.json: no results there; train the run"),
    ("metrics.json", "{", CompareError, r"metrics\.json: cannot be read .* evaluate the run again"),
    ("metrics.json", "[]", CompareError, r"metrics\.json: not a JSON object"),
    ("metrics.json", '{"all": {}}', CompareError, r"metrics\.json: not a table of results"),
    ("metrics.json", '{"step": 3}', CompareError, r"metrics\.json: not a table of results"),
    ("config.json", '{"config": {}}', CompareError, r"config\.json: not the record of a run"),
    ("config.json", None, CompareError, r"neither config\.json nor a checkpoint says what it is"),
    ("metrics.jsonl", "{\n{}\n", MetricsFileError, r"metrics\.jsonl, line 1: not a JSON record"),
  ],
)
def test_damaged_workdirs_are_named(
  tmp_path: Path, file: str, content: str | None, error: type[Exception], message: str
):
  write_run(tmp_path, small(), {"all": accuracies(0.5, 0.5)})
  if content is None:
    (tmp_path / file).unlink()
  else:
    (tmp_path / file).write_text(content)
  with pytest.raises(error, match=message):
    compare([tmp_path])


def test_one_seed_twice_is_refused(tmp_path: Path):
  rows = {"all": accuracies(0.5, 0.5)}
  runs = [write_run(tmp_path / name, small(), rows) for name in "ab"]
  with pytest.raises(CompareError, match=r"/a and .*/b are one config with one seed, 0; name one"):
    compare(runs)


class _Page(html.parser.HTMLParser):
  """The pictures, addresses and text of a page."""

  def __init__(self, page: str):
    super().__init__()
    self.images: list[dict[str, str | None]] = []
    self.addresses: list[str] = []
    self.text = ""
    self.feed(page)

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    self.images += [dict(attrs)] if tag == "img" else []
    self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

  def handle_data(self, data: str) -> None:
    self.text += data


def test_page_shows_bars_and_asks_for_nothing_outside(two_seeds: list[Path], tmp_path: Path):
  rows = {"all": accuracies(0.5, 0.4), "global": accuracies(0.3, 0.35)}
  both = write_run(tmp_path / "both", small("paper"), rows)
  write_comparison(compare([*two_seeds, both]), tmp_path / "page.html")
  page = _Page((tmp_path / "page.html").read_text())
  whole, branches = (image["alt"] for image in page.images)
  assert "cuhk03_small, mAP: 22.0 ± 2.8" in whole
  assert "cuhk03_small_paper, mAP: 40.0" in whole
  assert "cuhk03_small_paper, global: 35.0" in branches
  assert all(address.startswith("data:") for address in page.addresses)
  assert "13.0 ± 4.2" in page.text


def test_picture_has_a_bar_with_its_error_for_every_number(two_seeds: list[Path], tmp_path: Path):
  write_comparison(compare(two_seeds), tmp_path / "bars.svg")
  picture = (tmp_path / "bars.svg").read_text()
  assert picture.startswith("<svg")
  assert {"published", "rank-1", "mAP", "cuhk03 small"} <= set(picture.replace("<", ">").split(">"))
  # Two kinds of bars, of ours and of the published ones; each error bar has two caps.
  assert picture.count('id="LineCollection_') == 2


def test_command_writes_every_format(
  two_seeds: list[Path],
  tmp_path: Path,
):
  files = [tmp_path / f"table.{suffix}" for suffix in ("md", "json", "html", "svg")]
  printed = main([*map(str, two_seeds), *(f"--write={file}" for file in files)])
  assert "13.0 ± 4.2" in printed
  assert files[0].read_text() == as_markdown(compare(two_seeds))
  [test_set] = json.loads(files[1].read_text())["test_sets"]
  [group] = test_set["groups"]
  assert group["published_row"] == "all"
  assert group["published"] == {"rank1": pytest.approx(0.824), "mAP": pytest.approx(0.796)}
  assert group["untrained"]["mAP"]["mean"] == pytest.approx(0.01)
  assert group["differs_from_reference_in"][0].startswith("model.backbone: resnet18")


def test_a_file_that_is_there_stays(two_seeds: list[Path], tmp_path: Path):
  file = tmp_path / "README.md"
  file.write_text("somebody's own")
  with pytest.raises(UserError, match=r"README.md: is there already; --overwrite replaces it"):
    main([str(two_seeds[0]), f"--write={file}"])
  assert file.read_text() == "somebody's own"
  main([str(two_seeds[0]), f"--write={file}", "--overwrite"])
  assert file.read_text() == as_markdown(compare(two_seeds[:1]))


@pytest.mark.parametrize(
  ("file", "message"),
  [
    ("table.pdf", "table.pdf: the name must end in one of .md, .json, .html, .svg"),
    (
      "nowhere/table.md",
      "nowhere/table.md: cannot be written: No such file or directory; name another place",
    ),
  ],
)
def test_command_prints_an_error_on_one_line(
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture,
  two_seeds: list[Path],
  file: str,
  message: str,
):
  monkeypatch.setattr(sys, "argv", ["compare", str(two_seeds[0]), f"--write={file}"])
  with pytest.raises(SystemExit) as caught:
    cli()
  assert caught.value.code == 2
  assert capsys.readouterr().err == f"error: {message}\n"


def test_command_takes_no_accelerator_and_no_tensorflow(repository: Path, two_seeds: list[Path]):
  program = (
    "import sys\nsys.modules['tensorflow'] = None\n"
    "from magnifier_jax.tools import compare\ncompare.cli()\n"
    "from jax._src import xla_bridge\nassert not xla_bridge._backends"
  )
  program = program.replace("compare.cli()", "print(compare.main(sys.argv[1:]))")
  command = [sys.executable, "-c", program, *map(str, two_seeds)]
  subprocess.run(command, cwd=repository, check=True, stdout=subprocess.DEVNULL)


def test_a_full_disk_is_one_line(
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture,
  two_seeds: list[Path],
):
  file = tmp_path / "out" / "table.md"
  file.parent.mkdir()
  file.write_text("the last one")
  arguments = [str(two_seeds[0]), f"--write={file}", "--overwrite"]
  monkeypatch.setattr(sys, "argv", ["compare", *arguments])
  with full_disk(), pytest.raises(SystemExit) as caught:
    cli()
  assert caught.value.code == 2
  expected = f"error: {file}: cannot be written: File too large; free some space there, or have "
  assert capsys.readouterr().err == f"{expected}your quota raised\n"
  assert os.listdir(file.parent) == ["table.md"]
  assert file.read_text() == "the last one"


def test_paths_at_home(monkeypatch: pytest.MonkeyPatch, two_seeds: list[Path]):
  monkeypatch.setenv("HOME", str(two_seeds[0].parent))
  main([f"~/{two_seeds[0].name}", "--write=~/table.md"])
  assert (two_seeds[0].parent / "table.md").exists()
