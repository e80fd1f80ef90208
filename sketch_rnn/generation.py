"""Samples drawings point by point, from nothing or from a beginning.

`begin` makes the state before the first point; `advance` samples points. The
page calls it for a few points at a time.

A drawing depends on its key alone: neither on the other drawings of its batch
nor on how many points each call of `advance` samples.

Axes: B drawings, T the maximum number of points, Z latent.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from sketch_rnn import mixture as mixture_lib
from sketch_rnn import model as model_lib
from sketch_rnn import strokes

CHOICES = ('paper', 'js')


@dataclasses.dataclass(frozen=True)
class Sampling:
  """The way a point is sampled from its mixture.

  Attributes:
    temperature: below 1 less random, above 1 more (equation 8).
    greedy: take the mode (`mixture.mode`); the temperature is not used.
    sigma: 'paper' or 'tf1', the effect of the temperature on the standard
      deviations; see `mixture.tempered`.
    choices: 'paper' samples component and pen at the same temperature, 'js' at
      0.5 + 0.5 * temperature as the authors' page does, which lifts the pen
      often enough at low temperatures.
  """

  temperature: float = 1.0
  greedy: bool = False
  sigma: str = 'paper'
  choices: str = 'paper'

  def __post_init__(self):
    if not 0 < self.temperature < math.inf:
      raise ValueError(
        f'temperature={self.temperature} must be above 0: for the limit at 0 '
        'choose greedy'
      )
    if self.sigma not in mixture_lib.SIGMAS:
      raise ValueError(
        f'sigma={self.sigma!r} is none of {", ".join(mixture_lib.SIGMAS)}'
      )
    if self.choices not in CHOICES:
      raise ValueError(
        f'choices={self.choices!r} is none of {", ".join(CHOICES)}'
      )


@flax.struct.dataclass
class State:
  """Unfinished drawings.

  Attributes:
    rows: f32[B, T + 1, 5], stroke-5: START, the beginning, the sampled points,
      then END.
    time: i32[], index of the last row that is final.
    given: i32[B], number of points of the beginnings.
    ended: bool[B].
    keys: key[B].
    carry: the decoder's carry.
    projected_constant: see `SketchRNN.start`.
  """

  rows: jax.Array
  time: jax.Array
  given: jax.Array
  ended: jax.Array
  keys: jax.Array
  carry: Any
  projected_constant: jax.Array | None


@functools.partial(jax.jit, static_argnames='model')
def begin(
  model: model_lib.SketchRNN,
  variables: Any,
  keys: jax.Array,
  rows: jax.Array,
  given: jax.Array,
  z: jax.Array | None = None,
  labels: jax.Array | None = None,
) -> State:
  """The state before the first point.

  Args:
    model: the network.
    variables: its variables.
    keys: key[B], one for each drawing.
    rows: f32[B, T + 1, 5] of `strokes.to_stroke5`, the beginnings in the
      model's units. T is the maximum number of points of a drawing.
    given: i32[B], number of points of the beginnings; -1 for padding, for
      which nothing is sampled.
    z: f32[B, Z] of a conditional model, else None.
    labels: i32[B] of a model with classes, else None.
  """
  carry, projected_constant = model.apply(
    variables, z, labels, (len(rows),), method='start'
  )
  return State(
    rows=rows,
    time=jnp.int32(0),
    given=given,
    ended=given < 0,
    keys=keys,
    carry=carry,
    projected_constant=projected_constant,
  )


def advance(
  model: model_lib.SketchRNN,
  variables: Any,
  state: State,
  num_points: int,
  sampling: Sampling | Sequence[Sampling],
) -> State:
  """Advances by a number of points, or until every drawing has ended.

  The points of the beginnings are fed as they are; later points are sampled
  (section 3.4).

  Args:
    model: the network.
    variables: its variables.
    state: from `begin` or `advance`.
    num_points: number of points, those of the beginnings included.
    sampling: how points are sampled, for all drawings or for each; `sigma` must
      be the same for all. A new `sigma` compiles again; nothing else does.
  """
  samplings = [sampling] if isinstance(sampling, Sampling) else sampling
  sigmas = {one.sigma for one in samplings}
  if len(sigmas) > 1:
    raise ValueError(
      f'all drawings of a batch need the same sigma, not {sorted(sigmas)}'
    )

  def spread(values, dtype):
    return np.broadcast_to(np.array(values, dtype), len(state.rows))

  return _advance(
    model,
    variables,
    state,
    num_points,
    spread([one.temperature for one in samplings], np.float32),
    spread([_choice_temperature(one) for one in samplings], np.float32),
    spread([one.greedy for one in samplings], bool),
    sigma=sigmas.pop(),
  )


def _choice_temperature(sampling: Sampling) -> float:
  """The temperature of component and pen."""
  if sampling.choices == 'js':
    return 0.5 + 0.5 * sampling.temperature
  return sampling.temperature


@functools.partial(jax.jit, static_argnames=('model', 'sigma'))
def _advance(
  model,
  variables,
  state,
  num_points,
  temperature,
  choice_temperature,
  greedy,
  *,
  sigma,
):
  """`temperature` and the others are f32[B], f32[B] and bool[B]."""
  last = jnp.minimum(state.time + num_points, state.rows.shape[1] - 1)

  def sample(predicted, key, temperature, choice_temperature):
    tempered = mixture_lib.tempered(predicted, temperature, sigma=sigma)
    return mixture_lib.sample(
      tempered.replace(
        log_weights=predicted.log_weights / choice_temperature,
        pen_logits=predicted.pen_logits / choice_temperature,
      ),
      key,
    )

  def unfinished(state):
    return (state.time < last) & ~jnp.all(state.ended)

  def step(state):
    carry, raw = model.apply(
      variables,
      state.carry,
      state.rows[:, state.time],
      state.projected_constant,
      method='step',
    )
    predicted = mixture_lib.parameters(raw)
    keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, state.time)
    sampled = jnp.where(
      greedy[:, None],
      mixture_lib.mode(predicted),
      jax.vmap(sample)(predicted, keys, temperature, choice_temperature),
    )
    time = state.time + 1
    # After the end the rows are END already.
    kept = (time <= state.given) | state.ended
    sampled = jnp.where(sampled[:, 4:] > 0, strokes.END, sampled)
    row = jnp.where(kept[:, None], state.rows[:, time], sampled)
    return state.replace(
      rows=state.rows.at[:, time].set(row),
      time=time,
      ended=state.ended | (row[:, 4] > 0),
      carry=carry,
    )

  return jax.lax.while_loop(unfinished, step, state)
