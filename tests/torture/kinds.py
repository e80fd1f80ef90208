"""The kinds of cases, the longest first."""

from torture import damage
from torture import disk
from torture import hosts
from torture import kills
from torture import readers
from torture import server
from torture import table

KINDS = {
  'kills': kills.cases,
  'readers': readers.cases,
  'hosts': hosts.cases,
  'server': server.cases,
  'disk': disk.cases,
  'damage': damage.cases,
}


def cases(only: str | None, *, quick: bool) -> list[table.Case]:
  """The cases of some kinds, 'kills,readers', or of all.

  Raises:
    ValueError: there is no such kind.
  """
  names = only.split(',') if only else list(KINDS)
  if unknown := set(names) - set(KINDS):
    raise ValueError(
      f'--only={",".join(sorted(unknown))} is none of {", ".join(KINDS)}'
    )
  return [case for name in names for case in KINDS[name](quick=quick)]
