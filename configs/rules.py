"""Rules for the values of config fields, and their check.

  schema = rules.Schema('task.main', {'batch_size': rules.integer(1), ...})
  schema.check(config)

A rule belongs to one field. A group of fields is a `Group` or a dict. Rules of
several fields are functions of the whole config; they run once every field
alone is right.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import ml_collections

_MAX_PROBLEMS = 3  # In one error.
_MAX_NAMES = 12  # Of known fields, in an error.
_ABSENT, _NO_FIELD = 'is missing', 'no such field'


@dataclasses.dataclass(frozen=True)
class Rule:
  """A rule for the value of one field.

  Attributes:
    text: what the value must be, 'an integer of at least 1'.
    accepts: returns True for right values.
  """

  text: str
  accepts: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Group:
  """The fields of a group; those in `optional` may be absent."""

  fields: Mapping[str, Any]
  optional: Iterable[str] = ()


def arguments(**fields: Rule) -> Group:
  """A group of arguments that have defaults."""
  return Group(fields, optional=fields)


# Rules.


def integer(low: int, high: int | None = None) -> Rule:
  """An integer from `low` up, to `high` if it is given."""
  bounds = f'of at least {low}' if high is None else f'from {low} to {high}'
  return Rule(
    f'an integer {bounds}',
    lambda x: (
      type(x) is int and low <= x and (high is None or x <= high)  # No bool.
    ),
  )


def number(
  low: float | None = None,
  high: float | None = None,
  *,
  above: float | None = None,
  below: float | None = None,
) -> Rule:
  """A finite number from `low` to `high`; `above` and `below` exclude ends."""
  bounds = [
    f'{word} {bound}'
    for word, bound in (
      ('of at least', low),
      ('above', above),
      ('at most', high),
      ('below', below),
    )
    if bound is not None
  ]

  def accepts(x):
    return (
      type(x) in (int, float)
      and math.isfinite(x)
      and (low is None or x >= low)
      and (above is None or x > above)
      and (high is None or x <= high)
      and (below is None or x < below)
    )

  return Rule(f'a number {" and ".join(bounds)}'.rstrip(), accepts)


def flag() -> Rule:
  """True or False."""
  return Rule('True or False', lambda x: isinstance(x, bool))


def text(pattern: str = '', form: str = 'text') -> Rule:
  """Text; of a form that a regular expression describes, if it is given."""
  return Rule(
    form,
    lambda x: (
      isinstance(x, str)
      and (not pattern or re.fullmatch(pattern, x, re.ASCII) is not None)
    ),
  )


def choice(*values: Any) -> Rule:
  """One of some values."""
  known = ', '.join(map(repr, values))
  return Rule(
    f'one of {known}',
    lambda x: any(type(x) is type(value) and x == value for value in values),
  )


def pattern() -> Rule:
  """A regular expression."""

  def accepts(x):
    try:
      return isinstance(x, str) and re.compile(x) is not None
    except re.error:
      return False

  return Rule('a regular expression', accepts)


def optional(rule: Rule) -> Rule:
  """A rule that accepts None too."""
  return Rule(f'None or {rule.text}', lambda x: x is None or rule.accepts(x))


def either(*options: Rule) -> Rule:
  """A rule that accepts the values of several."""
  return Rule(
    ' or '.join(rule.text for rule in options),
    lambda x: any(rule.accepts(x) for rule in options),
  )


def sequence(rule: Rule, low: int = 0, high: int | None = None) -> Rule:
  """A tuple or list of `low` to `high` elements."""
  count = f'at least {low}' if low else 'any number'
  if high is not None:
    count = str(low) if low == high else f'{low} to {high}'
  return Rule(
    f'a tuple of {count}, each {rule.text}',
    lambda x: (
      isinstance(x, tuple | list)
      and len(x) >= low
      and (high is None or len(x) <= high)
      and all(map(rule.accepts, x))
    ),
  )


def pair(first: Rule, second: Rule) -> Rule:
  """A tuple or list of two elements."""
  return Rule(
    f'a pair of {first.text} and {second.text}',
    lambda x: (
      isinstance(x, tuple | list)
      and len(x) == 2
      and first.accepts(x[0])
      and second.accepts(x[1])
    ),
  )


# Their check.


@dataclasses.dataclass(frozen=True)
class Schema:
  """The rules for the configs of one command.

  Attributes:
    command: trains by these configs, for errors.
    fields: name -> a `Rule`, a `Group`, a dict of fields, or a function from
      the config to one of them, or to None if another field is wrong.
    together: functions of a config that yield what is wrong with several
      fields.
    of_training: paths of fields that training alone reads.
  """

  command: str
  fields: Mapping[str, Any]
  together: Sequence[Callable[[ml_collections.ConfigDict], Iterator[str]]] = ()
  of_training: frozenset[str] = frozenset()

  def check(
    self,
    config: ml_collections.ConfigDict,
    origin: str = '',
    *,
    training: bool = True,
  ):
    """Checks all fields of a config.

    Args:
      config: an experiment.
      origin: its file, for the error.
      training: False for the config of a trained model. It may lack the fields
        that training alone reads, and `together` was checked before.

    Raises:
      ValueError: up to three problems, one on a line.
    """
    absent = frozenset() if training else self.of_training
    found = [
      problem
      for problem in _problems(config, self.fields, config, 'config')
      if problem not in {_missing(f'config.{path}') for path in absent}
    ]
    if training and not found:
      found = [problem for rule in self.together for problem in rule(config)]
    if origin and any(_ABSENT in x or _NO_FIELD in x for x in found):
      origin = f'{origin} is not the config of a {self.command} run'
    _raise(found, origin)

  def unknown_field(
    self, config: ml_collections.ConfigDict, path: str
  ) -> str | None:
    """The problem of a path of fields that is not in a config, or None."""
    return _unknown_field(config, path, 'config')


def check_group(
  fields: ml_collections.ConfigDict,
  group: Any,
  name: str,
  together: Callable[[ml_collections.ConfigDict], Iterator[str]],
):
  """Checks one group of a config, such as `decoding`.

  Raises:
    ValueError: see `Schema.check`.
  """
  found = list(_problems(fields, group, fields, name))
  _raise(found or list(together(fields)), '')


def _unknown_field(config: Any, path: str, prefix: str) -> str | None:
  name, _, rest = path.partition('.')
  if not isinstance(config, ml_collections.ConfigDict):
    return f'{prefix} has no fields, it is {config!r}'
  if name not in config:
    return _unknown(f'{prefix}.{name}', name, list(config))
  if not rest:
    return None
  return _unknown_field(config.get(name), rest, f'{prefix}.{name}')


def _raise(problems: list[str], origin: str):
  if not problems:
    return
  if len(problems) > _MAX_PROBLEMS:
    more = len(problems) - _MAX_PROBLEMS + 1
    problems = [*problems[: _MAX_PROBLEMS - 1], f'and {more} more']
  start = f'{origin}: ' if origin else ''
  raise ValueError(start + '\n'.join(problems))


def _problems(value, rule, config, path) -> Iterator[str]:
  """Yields what is wrong with a field, or with those of a group."""
  if callable(rule):
    rule = rule(config)
    if rule is None:  # The field that decides is wrong itself.
      return
  if isinstance(rule, Rule):
    if isinstance(value, ml_collections.ConfigDict) or not rule.accepts(value):
      shown = ' '.join(repr(value).split())
      shown = shown if len(shown) < 80 else f'{shown[:77]}...'
      yield f'{path}={shown} must be {rule.text}'
    return
  group = rule if isinstance(rule, Group) else Group(rule)
  if not isinstance(value, ml_collections.ConfigDict):
    yield f'{path}={value!r} must be a group of fields'
    return
  for name in value:
    if name not in group.fields:
      yield _unknown(f'{path}.{name}', name, list(group.fields))
  for name, inner in group.fields.items():
    if name in value:
      # `get`, not attributes: `value.keys` may be a field.
      yield from _problems(value.get(name), inner, config, f'{path}.{name}')
    elif name not in group.optional:
      yield _missing(f'{path}.{name}')


def _missing(path: str) -> str:
  return f'{path} {_ABSENT}'


def _unknown(path: str, name: str, known: list[str]) -> str:
  near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
  if near:
    return f'{path}: {_NO_FIELD}; did you mean {near[0]}?'
  names = ', '.join(known[:_MAX_NAMES]) or 'no fields'
  more = ', ...' if len(known) > _MAX_NAMES else ''
  return f'{path}: {_NO_FIELD}; there are {names}{more}'
