r"""Writes the workdir of a published Sketch-RNN model, for sampling.

  python scripts/import_sketch_rnn.py --weights=dog.gen.json \
      --workdir=runs/published_dog
  python -m sketch_rnn.sample sample --workdir=runs/published_dog \
      --output=dogs --temperature=0.1,0.4,0.8

The weights are a JSON file of the authors' web page: `NAME.gen.json`, or
`NAME.vae.json` with an encoder.
"""

import pathlib
from typing import Any

import ml_collections
import optax

from sketch_rnn import published
from training import app
from training import checkpoints
from training import errors
from training import parallel
from training import paths


def make_config(
  arguments: dict[str, Any], info: dict[str, Any]
) -> ml_collections.ConfigDict:
  """Makes the config fields that sampling and evaluation read."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.model = arguments
  config.data = dict(
    name='quickdraw_sketches',
    categories=(info['name'],),
    data_dir=ml_collections.config_dict.placeholder(str),
    max_length=info['max_seq_len'],
    limit=1000.0,
  )
  config.loss = dict(kl_weight=0.5, kl_floor=0.2)
  config.eval_batch_size = 100
  config.latent_samples = 1
  config.best_metric = 'loss'
  config.best_mode = 'min'
  return config


def write(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict,
  params: dict[str, Any],
  info: dict[str, Any],
):
  """Writes the workdir: the config, and a checkpoint at step 0."""
  extras = {
    'config': config.to_dict(),
    'drawings': {
      'scale': info['scale_factor'],
      'length': info['max_seq_len'],
      'categories': [info['name']],
    },
  }
  state = parallel.create_state({'params': params}, optax.identity())
  with checkpoints.Checkpoints(
    workdir, best_metric=config.best_metric, mode=config.best_mode
  ) as saved:
    if saved.latest_step is not None:
      raise ValueError(
        f'{workdir} has a checkpoint already: choose another --workdir'
      )
    checkpoints.write_config(workdir, config)
    saved.save(state, extras=extras)


def main():
  """Runs the command."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument(
    '--weights', required=True, help='NAME.gen.json or NAME.vae.json'
  )
  parser.add_argument('--workdir', required=True, help='workdir to write')
  args = parser.parse_args(paths.arguments(parser))
  app.set_up_logging()
  workdir = pathlib.Path(args.workdir).absolute()
  try:
    arguments, params, info = published.load(args.weights)
    write(workdir, make_config(arguments, info), params, info)
  except (ValueError, OSError) as error:
    errors.fail(str(error))
  print(
    f'{info["name"]}, {arguments["decoder"]} decoder of '
    f'{arguments["decoder_features"]} units, all tensors found: {workdir}'
  )


if __name__ == '__main__':
  errors.run(main)
