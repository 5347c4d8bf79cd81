"""The base of every error that a user can mend."""


class UserError(ValueError):
  """Something the user gave is wrong; the message names it and the mend, and is all that `main`
  prints."""
