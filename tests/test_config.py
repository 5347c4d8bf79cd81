"""Config files and their validated view."""

import ast
import importlib
import typing
from pathlib import Path

import pytest

from configs.cuhk03 import get_config
from magnifier_jax.config import Config, ConfigError
from magnifier_jax.config import fields as config_lib
from tests.config_reads import fields_of, fields_read

ROWS = ["baseline", "part_segmentation", "adversarial", "fusion", "no_diversity", "all"]
NETWORKS = [
  *ROWS,
  "authors",
  "paper",
  "small",
  "small,baseline",
  "fusion,small",
  "strong",
  "strong,small",
  "pod",
  "large_pod",
]
VARIANTS = {
  "cuhk03": ["labeled", "detected", *NETWORKS, "detected,small"],
  "custom": ["full", *NETWORKS],
  "dukemtmc": ["full", "occluded", *NETWORKS, "occluded,small"],
  "joint": [
    "full",
    "leave_out_market1501",
    "leave_out_dukemtmc",
    "leave_out_cuhk03,without_dukemtmc",
    "equal",
    "one_dataset,small",
    *NETWORKS,
  ],
  "market1501": ["full", *NETWORKS],
  "msmt17": ["v1", "v2", "trainval", "v2,trainval", "trainval,v2", *NETWORKS],
  "synthetic": ["small", "large", *NETWORKS, "large,baseline"],
}


def test_every_config_file_has_its_variants_tested(repository: Path):
  files = {path.stem for path in (repository / "configs").glob("*.py")}
  assert files - {"__init__"} == VARIANTS.keys()


@pytest.mark.parametrize(
  ("file", "variant"), [(file, variant) for file, names in VARIANTS.items() for variant in names]
)
def test_variant_is_valid(file: str, variant: str):
  config = importlib.import_module(f"configs.{file}").get_config(variant)
  assert Config.from_config_dict(config).training.num_epochs > 0


@pytest.mark.parametrize("file", VARIANTS)
def test_variants_of_a_file_have_names_of_their_own(file: str):
  """A run's name is its default folder."""
  get_config = importlib.import_module(f"configs.{file}").get_config
  others = ("authors", "paper", "strong", "pod", "large_pod")
  names = [get_config(variant).name for variant in (*ROWS, *others)]
  assert len(set(names)) == len(names)
  assert get_config("all").name == get_config().name
  assert get_config("small,baseline").name == f"{get_config('small').name}_baseline"


@pytest.mark.parametrize(("variant", "devices", "times"), [("pod", 8, 4), ("large_pod", 64, 16)])
def test_a_pods_batch_is_split_evenly_and_learns_faster(variant: str, devices: int, times: int):
  usual, pod = (Config.from_config_dict(get_config(name)) for name in ("all", variant))
  assert pod.data.batch_size == times * usual.data.batch_size
  assert pod.data.batch_size % devices == pod.evaluation.batch_size % devices == 0
  assert pod.optimizer.learning_rate == pytest.approx(times**0.5 * usual.optimizer.learning_rate)
  assert pod.optimizer.warmup_epochs > usual.optimizer.warmup_epochs
  assert pod.name == f"{usual.name}_{variant}"


def test_the_strong_recipe_is_the_same_before_and_after_small():
  before, after = (get_config(variant).to_dict() for variant in ("strong,small", "small,strong"))
  assert (before.pop("name"), after.pop("name")) == ("cuhk03_strong_small", "cuhk03_small_strong")
  assert before == after
  assert after["optimizer"]["schedule"] == "cosine"
  data = after["data"]
  assert (data["identities_per_batch"], data["images_per_identity"]) == (16, 2)


@pytest.mark.parametrize("variant", ["baseline", "large"])
def test_synthetic_variants_train_on_drawn_people(variant: str):
  from configs import synthetic

  assert synthetic.get_config(variant).data.dataset.startswith("synthetic_reid/")


@pytest.mark.parametrize(
  ("variant", "datasets"),
  [
    ("full", ("market1501", "cuhk03_np/labeled", "msmt17/v1", "dukemtmc_reid")),
    ("leave_out_market1501,small", ("cuhk03_np/labeled", "msmt17/v1", "dukemtmc_reid")),
    ("leave_out_cuhk03,without_dukemtmc", ("market1501", "msmt17/v1")),
  ],
)
def test_joint_variants_leave_data_sets_out(variant: str, datasets: tuple[str, ...]):
  from configs import joint

  assert Config.from_config_dict(joint.get_config(variant)).data.datasets == datasets


@pytest.mark.parametrize("file", VARIANTS)
def test_unknown_variant_names_the_known_ones(file: str):
  with pytest.raises(ValueError, match=r"no variant 'smal'; choose from .*small"):
    importlib.import_module(f"configs.{file}").get_config("smal")


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("model.backbone", "resnet5", "config.model.backbone: must be one of resnet10"),
    ("model.last_stride", 3, "config.model.last_stride: must be one of 1, 2"),
    ("seed", "0", "config.seed: must be of type int"),
    ("seed", True, "config.seed: must be of type int"),
    ("data.image_size_hw", (384,), "config.data.image_size_hw: must have 2 values"),
    ("data.image_size_hw", (100, 64), "config.data.image_size_hw: .* multiples of 32"),
    ("data.augmentation.flip_probability", 1.5, "flip_probability: must be from 0.0 to 1.0"),
    ("data.augmentation.erasing_area", (0.5, 0.1), "erasing_area: the low end 0.5 is above"),
    ("data.occlusion.upper_parts", 5, "upper_parts: must be from 0 to 4"),
    ("training.num_epochs", 0, "config.training.num_epochs: must be at least 1"),
    ("model.part_segmentation", False, "config.model.part_segmentation: must be True with"),
    ("optimizer.schedule", "linear", "config.optimizer.schedule: must be one of step, cosine"),
    ("optimizer.ema_decay", 1.0, "config.optimizer.ema_decay: must be from 0.0 to 0.99999"),
    ("model.global_pooling", "max", "config.model.global_pooling: must be one of average, gem"),
    ("data.augmentation.contrast", 1.5, "augmentation.contrast: must be from 0.0 to 1.0"),
    ("optimizer.learning_rat", 1.0, "no such field; did you mean learning_rate?"),
    ("data.dataset", "('a', 'b'", r"config.data.dataset: must be a name, or a tuple of names as"),
    ("data.dataset", ("a", 3), r"config.data.dataset: must be a name, or a tuple of names as"),
    ("data.dataset", (), r"config.data.dataset: must be a name, or a tuple of names as"),
    ("data.dataset", "", r"config.data.dataset: must be a name, or a tuple of names as"),
    ("data.dataset", ("a", "b", "a"), r"config.data.dataset: 'a' is listed twice"),
    ("data.missing_part_labels", "none", "config.data.missing_part_labels: must be one of refuse"),
    ("data.missing_part_labels", ("bands", "b"), "missing_part_labels: must be one of .*got 'b'"),
    ("data.missing_part_labels", ("bands", "bands"), "missing_part_labels: 2 rules for 1 data set"),
    ("evaluation.occlude", "hat", "config.evaluation.occlude: must be none, each, or .*got 'hat'"),
    ("evaluation.occlude", ("head", "head"), "config.evaluation.occlude: .*different ones of head"),
    ("evaluation.occlude", ("each", "head"), "config.evaluation.occlude: must be none, each, or"),
    ("evaluation.occlude", "background", "config.evaluation.occlude: must be none, each, or"),
    ("evaluation.occlude_bottom", (0.1, 1.1), "config.evaluation.occlude_bottom: must be from 0.0"),
    ("optimizer", 3, "config.optimizer: expected a group of fields"),
  ],
)
def test_wrong_field_is_named(field: str, value: typing.Any, message: str):
  config = get_config().to_dict()
  *groups, name = field.split(".")
  target = config
  for group in groups:
    target = target[group]
  target[name] = value
  with pytest.raises(ConfigError, match=message):
    Config.from_config_dict(config)


@pytest.mark.parametrize(
  ("written", "meant"),
  [
    ("market1501", "market1501"),
    (("market1501",), "market1501"),
    ("('market1501',)", "market1501"),
    (["market1501", "msmt17"], ("market1501", "msmt17")),
    (" ['market1501', 'msmt17']", ("market1501", "msmt17")),
  ],
)
def test_data_sets_are_one_name_or_a_tuple(written: typing.Any, meant: typing.Any):
  config = get_config().to_dict()
  config["data"]["dataset"] = written
  assert Config.from_config_dict(config).data.dataset == meant


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("data.data_dir", "None", "'None' is no path; '' means TFDS's own default, and ./None is one"),
    ("data.data_dir", " ", "must name a folder; got ' '"),
    ("data.manual_dir", "none", "'none' is no path; name a folder"),
    ("data.manual_dir", "", "must name a folder; got ''"),
    ("init.checkpoint", "None", "'None' is no path; '' means no checkpoint"),
    ("evaluation.embeddings", "null", "'null' is no path; '' means the images of the data set"),
  ],
)
def test_a_path_that_names_nothing_is_refused(field: str, value: str, message: str):
  config = get_config()
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ConfigError, match=f"^config.{field}: {message}"):
    Config.from_config_dict(config)


@pytest.mark.parametrize(
  ("occlude", "parts"),
  [("none", ()), ("each", (1, 2, 3, 4, 5, 6, 7)), ("foot", (7,)), ("('torso', 'head')", (2, 1))],
)
def test_occluded_parts_have_numbers(occlude: str, parts: tuple[int, ...]):
  config = get_config()
  config.evaluation.occlude = occlude
  assert Config.from_config_dict(config).evaluation.occluded_parts == parts


def test_drawn_queries_are_not_occluded():
  config = get_config()
  config.evaluation.update(occlude="each", camera_rule="single_shot")
  with pytest.raises(ConfigError, match=r"config\.evaluation\.occlude: must be none with"):
    Config.from_config_dict(config)


def test_a_warmup_leaves_something_of_the_cosine():
  config = get_config()
  config.optimizer.update(schedule="cosine", warmup_epochs=10)
  config.training.num_epochs = 10
  with pytest.raises(
    ConfigError, match=r"^config\.optimizer\.warmup_epochs: 10 leave nothing of 10"
  ):
    Config.from_config_dict(config)


def test_missing_field_is_named():
  config = get_config().to_dict()
  del config["loss"]["triplet_margin"]
  with pytest.raises(ConfigError, match=r"config.loss.triplet_margin: missing"):
    Config.from_config_dict(config)


def test_no_branch_at_all_is_refused():
  config = get_config()
  config.model.update(global_branch=False, adversarial_branch=False, fusion_branch=False)
  with pytest.raises(ConfigError, match="at least one branch must be on"):
    Config.from_config_dict(config)


def test_whole_numbers_are_taken_where_floats_are_wanted():
  config = get_config()
  with config.ignore_type():
    config.loss.triplet_margin = 1
  assert Config.from_config_dict(config).loss.triplet_margin == 1.0


@pytest.fixture(scope="module")
def code(repository: Path) -> list[ast.Module]:
  """The package, without the room that declares the fields."""
  package = repository / "magnifier_jax"
  files = [file for file in package.rglob("*.py") if file.parent.name != "config"]
  return [ast.parse(file.read_text()) for file in files]


def test_every_field_is_read(code: list[ast.Module]):
  """A field that no code reads would be a switch that does nothing."""
  fields = fields_of(config_lib)
  assert fields.keys() - fields_read(code, fields) == set()


def test_a_dead_field_is_found_whatever_its_name(code: list[ast.Module]):
  """Another group's `seed` or `flip` is read, and so is a random generator's."""
  fields = fields_of(config_lib)
  groups = {group for group, _ in fields}
  properties = {
    (group, name) for group in groups for name in dir(getattr(config_lib, group)) if name[0] != "_"
  }
  dead = {(group, name) for group in groups for _, name in fields} - fields.keys() - properties
  assert {("DataConfig", "seed"), ("DataConfig", "flip"), ("ModelConfig", "seed")} < dead
  assert fields_read(code, fields | dict.fromkeys(dead)) & dead == set()


@pytest.mark.parametrize(
  ("field", "value", "meant"),
  [
    ("pixel_mean", (0.485, 0.456, 0.406), r"write \(123\.675, 116\.28, 103\.53\)"),
    ("pixel_mean", (0.5, 0.5, 0.5), r"write \(127\.5, 127\.5, 127\.5\)"),
    ("pixel_mean", (0.0, 0.0, 0.2), r"write \(0, 0, 51\)"),
    ("pixel_std", (0.229, 0.224, 0.225), r"write \(58\.395, 57\.12, 57\.375\)"),
    ("pixel_std", (0.5, 1.0, 1.0), r"write \(127\.5, 255, 255\)"),
  ],
)
def test_pixels_of_0_to_1_are_refused_with_what_is_meant(field: str, value: tuple, meant: str):
  config = get_config()
  setattr(config.data, field, value)
  with pytest.raises(ConfigError, match=rf"config\.data\.{field}: .* are of 0…1, .*{meant}"):
    Config.from_config_dict(config)


@pytest.mark.parametrize(
  ("mean", "std"),
  [
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # pixels as they are
    ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    ((104.0, 117.0, 123.0), (1.0, 1.0, 1.0)),  # Caffe's
    ((1.5, 0.9, 0.8), (3.0, 0.5, 0.5)),  # pictures of the night
  ],
)
def test_other_pixels_are_taken(mean: tuple, std: tuple):
  config = get_config()
  config.data.pixel_mean, config.data.pixel_std = mean, std
  assert Config.from_config_dict(config).data.pixel_mean == mean
