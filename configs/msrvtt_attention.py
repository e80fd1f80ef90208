r"""Temporal attention (Yao et al. 2015) on MSR-VTT, frozen ResNet-152.

  python scripts/prepare_clips.py --name=captioned_clips/msrvtt \
    --input=videos --captions train_val_videodatainfo.json \
    test_videodatainfo.json --resize=256 --rate=3
  python -m video.caption --config=configs/msrvtt_attention.py \
    --workdir=runs/msrvtt --config.encoder_weights=resnet152.safetensors
  python -m video.caption --config=configs/msrvtt_attention.py:self_critical \
    --workdir=runs/msrvtt_self_critical --config.start_from=runs/msrvtt

MSR-VTT has 10,000 clips with 20 sentences each, in three splits of 6,513, 497
and 2,990. Sizes are those of an open reproduction (hobincar/SA-LSTM): 28 frames
spread over the clip, word embeddings of 468, 512 units, 256 of attention,
dropout 0.5, 30 epochs, the best CIDEr on the validation split. That has no
recurrent encoder; here an LSTM of 512 units reads the frames first. The second
command trains on CIDEr-D (Rennie et al. 2017), which that code does not.

Published there, ResNet-152: BLEU-4 36.4, METEOR 25.5, CIDEr 41.3, ROUGE-L 57.6.
Measured: not run (needs the clips and one GPU).
"""

from configs import common

PHASES = {
  'cross_entropy': {},
  # As in captioning of images; without dropout, so that the policy that learns
  # is the one that is used.
  'self_critical': {
    'decoder.dropout_rate': 0.0,
    'self_critical.num_samples': 5,
    'optimizer.learning_rate': 5e-5,
    'optimizer.schedule': 'constant',
    'optimizer.weight_decay': 0.0,
  },
}


def get_config(phase='cross_entropy'):
  config = common.clip_captioning()

  config.data = common.captioned_clips(
    name='captioned_clips/msrvtt',
    vocabulary_threshold=3,
    max_length=30,
    num_frames=28,
    resize=256,
    crop=224,
  )
  config.cache_features = True

  config.model = 'temporal_attention'
  config.encoder = dict(depth=152)
  config.encoder_weights = 'hf://timm/resnet152.tv_in1k'
  config.decoder = dict(
    features=512,
    embedding=468,
    attention=256,
    encoder_features=512,
    bidirectional=False,
    dropout_rate=0.5,
  )

  config.optimizer = common.optimizer(
    learning_rate=2e-4, warmup_steps=500, weight_decay=1e-5, clip_norm=5.0
  )
  config.batch_size = 64  # Clips, with five captions each.
  # 30 epochs of the clips' 20 sentences; every clip comes 120 times.
  config.num_steps = 12_200

  config.decoding = common.decoding(beam_size=5, max_length=30)
  config.eval_batch_size = 20
  config.log_every = 100
  config.eval_every = 1000
  config.checkpoint_every = 500
  config.update_from_flattened_dict(common.chosen(PHASES, phase))
  return config
