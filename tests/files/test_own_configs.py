"""Where the config files of the package lie."""

from pathlib import Path

import pytest

from magnifier_jax.files import own_configs
from magnifier_jax.files.own_configs import OwnConfigsError


def test_the_folder_of_configs_is_found_in_the_package_or_beside_it(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  package = tmp_path / "site-packages" / "magnifier_jax"
  monkeypatch.setattr(own_configs, "__file__", str(package / "files" / "x.py"))
  with pytest.raises(OwnConfigsError, match=r"no folder `configs` in or beside .*_jax;"):
    own_configs.configs_folder()
  for folder in (package.parent / "configs", package / "configs"):
    folder.mkdir(parents=True)
    (folder / "cuhk03.py").write_text("")
    assert own_configs.configs_folder() == folder
