"""Lists directories without the files that systems leave there.

Copies made with other systems have `.DS_Store`, `._photo.jpg` or `Thumbs.db`
beside the data.
"""

import os
import pathlib

# In lower case. Names with a dot in front are hidden already.
_SYSTEM = frozenset(
  [
    '$recycle.bin',
    '__macosx',
    '@eadir',
    'desktop.ini',
    'ehthumbs.db',
    'icon\r',
    'lost+found',
    'system volume information',
    'thumbs.db',
  ]
)


def is_visible(path: str | os.PathLike) -> bool:
  """Checks that the last name of a path is not hidden and not a system's."""
  name = pathlib.PurePath(path).name
  return not name.startswith('.') and name.lower() not in _SYSTEM


def entries(directory: str | os.PathLike) -> list[pathlib.Path]:
  """The visible files and directories in a directory, by name."""
  return sorted(filter(is_visible, pathlib.Path(directory).iterdir()))


def matching(directory: str | os.PathLike, pattern: str) -> list[pathlib.Path]:
  """The visible files that match a pattern of `glob`, by name."""
  return sorted(filter(is_visible, pathlib.Path(directory).glob(pattern)))


def below(directory: str | os.PathLike) -> list[pathlib.Path]:
  """The visible files at any depth below a directory, by path.

  What is in a hidden directory is hidden.
  """
  found = []
  for folder, names, files in os.walk(directory):
    names[:] = filter(is_visible, names)
    found += [pathlib.Path(folder, name) for name in filter(is_visible, files)]
  return sorted(found)


class Files:
  """The files below a directory, by the names that a list gives them."""

  def __init__(self, directory: str | os.PathLike):
    """Takes the directory; nothing is read yet."""
    self._directory = pathlib.Path(directory)
    self._spellings: dict[pathlib.Path, dict[str, list[str]]] = {}

  def find(self, *names: str) -> pathlib.Path:
    """The path of a file, from the names of its directories and its own.

    Where the file exists with other capitals only, as `a.JPG` for `a.jpg`, the
    path is that one.

    Raises:
      ValueError: the names lead out of the directory, are too long, or are not
        text.
    """
    if not all(isinstance(name, str) for name in names):
      raise ValueError(f'the name of a file must be text, not {names!r:.80}')
    parts = [part for name in names for part in pathlib.PurePath(name).parts]
    if '..' in parts or any(
      '\0' in name or pathlib.PureWindowsPath(name).anchor for name in names
    ):
      raise ValueError(
        f'{"/".join(names)!r:.200} leads out of {self._directory}'
      )
    path = self._directory.joinpath(*parts)
    try:
      if path.exists():
        return path
    except OSError as error:
      raise ValueError(f'{"/".join(names)!r:.200} is too long') from error
    same = self._spelled(path.parent).get(path.name.lower(), ())
    return path.with_name(same[0]) if len(same) == 1 else path

  def _spelled(self, directory: pathlib.Path) -> dict[str, list[str]]:
    """Names in lower case -> those in the directory."""
    if directory not in self._spellings:
      found = self._spellings[directory] = {}
      try:
        for name in os.listdir(directory):
          found.setdefault(name.lower(), []).append(name)
      except OSError:  # There is no such directory.
        pass
    return self._spellings[directory]
