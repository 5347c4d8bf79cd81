"""Market-1501 (Zheng et al., ICCV 2015), read from the user's folder."""

import tensorflow_datasets as tfds

from magnifier_jax.data.datasets.split_folders import SplitFolderBuilder
from magnifier_jax.data.records import SplitCounts


class Market1501(SplitFolderBuilder):
  """Market-1501: 1,501 people from six cameras, 751 to train on and 750 to test on.

  The gallery also holds distractors (person 0), which count as wrong matches, and junk (person −1),
  which is ignored.
  """

  VERSION = tfds.core.Version("1.0.0")
  TITLE = "Market-1501"
  FOLDER_NAMES = ("Market-1501-v15.09.15", "Market-1501", "market1501", "Market1501")
  EXAMPLE = "0002_c1s1_000451_03.jpg"
  PUBLISHED_COUNTS = {  # noqa: RUF012 - as its base says
    "train": SplitCounts(12_936, 751, 6),
    "query": SplitCounts(3_368, 750, 6),
    "gallery": SplitCounts(15_913, 750, 6),  # 19,732 with junk
  }
  DISTRACTOR_PERSON_ID = 0
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
  Put Market-1501-v15.09.15/{bounding_box_train,query,bounding_box_test}/0002_c1s1_000451_03.jpg and
  the part labels Market-1501-v15.09.15_ps_label/…/0002_c1s1_000451_03.png into this folder.
  """
