"""DukeMTMC-reID (Zheng et al., ICCV 2017) and Occluded-Duke (Miao et al., ICCV 2019)."""

import tensorflow_datasets as tfds

from magnifier_jax.data.datasets.split_folders import SplitFolderBuilder
from magnifier_jax.data.records import SplitCounts


class DukemtmcReid(SplitFolderBuilder):
  """DukeMTMC-reID: 702 people from eight cameras to train on, 702 and 408 distractors to test on.

  The distractors have numbers of their own, as anybody else.
  """

  VERSION = tfds.core.Version("1.0.0")
  TITLE = "DukeMTMC-reID"
  FOLDER_NAMES = ("DukeMTMC-reID", "dukemtmc-reid/DukeMTMC-reID", "dukemtmc-reid")
  EXAMPLE = "0001_c2_f0046302.jpg"
  PUBLISHED_COUNTS = {  # noqa: RUF012 - as its base says
    "train": SplitCounts(16_522, 702, 8),
    "query": SplitCounts(2_228, 702, 8),
    "gallery": SplitCounts(17_661, 1_110, 8),
  }
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
  Put DukeMTMC-reID/{bounding_box_train,query,bounding_box_test}/0001_c2_f0046302.jpg and the part
  labels DukeMTMC-reID_ps_label/…/0001_c2_f0046302.png into this folder.
  """


class OccludedDuke(SplitFolderBuilder):
  """Occluded-Duke: DukeMTMC-reID divided anew, so that every query is partly hidden."""

  VERSION = tfds.core.Version("1.0.0")
  TITLE = "Occluded-Duke"
  FOLDER_NAMES = ("Occluded_Duke", "Occluded-Duke", "Occluded-DukeMTMC-reID", "Occluded_DukeMTMC")
  EXAMPLE = "0001_c2_f0046302.jpg"
  PUBLISHED_COUNTS = {  # noqa: RUF012 - as its base says
    "train": SplitCounts(15_618, 702, 8),
    "query": SplitCounts(2_210, 519, 8),
    "gallery": SplitCounts(17_661, 1_110, 8),
  }
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
  Put Occluded_Duke/{bounding_box_train,query,bounding_box_test}/0001_c2_f0046302.jpg and the part
  labels Occluded_Duke_ps_label/…/0001_c2_f0046302.png into this folder.
  """
