"""The HTML templates of the report and of the tools' pages."""

import jinja2


def template_environment(*packages: str) -> jinja2.Environment:
  """Returns what renders the templates of packages; a name that is not given is an error.

  Args:
    packages: with a `templates` folder; those that come first are searched first.
  """
  return jinja2.Environment(
    loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package) for package in packages]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
