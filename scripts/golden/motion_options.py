"""Own plain implementation of the official temporal module, run with every option set the toolkit supports."""

import math

import common
import models
import torch
from common import describe, generator, randn, randomise, save
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

BATCH, FRAMES, CHANNELS, SIDE = 2, 4, 32, 3
SELF, CROSS = "Temporal_Self", "Temporal_Cross"
DEFAULT = dict(num_attention_heads=8, num_transformer_block=1, attention_block_types=[SELF, SELF],
               temporal_position_encoding=True, temporal_position_encoding_max_len=32, temporal_attention_dim_div=1)
CASES = [
    {}, dict(attention_block_types=[SELF]), dict(attention_block_types=[SELF] * 3), dict(num_transformer_block=2),
    dict(temporal_attention_dim_div=2), dict(temporal_position_encoding=False), dict(num_attention_heads=4),
    dict(attention_block_types=[SELF, CROSS])]


def position_table(length, width):
    """Interleaved sine and cosine, [1, length, width]."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(1, length, width)


class TemporalAttention(nn.Module):
    """Attention over frames at every position; keys and values come from the frames or from the video's text."""

    def __init__(self, width, heads, text_width, max_length):
        super().__init__()
        self.heads, self.is_cross = heads, text_width is not None
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(text_width or width, width, bias=False)
        self.to_v = nn.Linear(text_width or width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.table = position_table(max_length, width) if max_length else None

    def split(self, x):
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x, text, frames):
        rows, positions, width = x.shape
        videos = rows // frames
        x = x.reshape(videos, frames, positions, width).transpose(1, 2).reshape(videos * positions, frames, width)
        if self.table is not None:
            x = x + self.table[:, :frames]
        source = text.repeat_interleave(positions, dim=0) if self.is_cross else x
        query, key, value = self.split(self.to_q(x)), self.split(self.to_k(source)), self.split(self.to_v(source))
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        x = self.to_out[0]((weights @ value).transpose(1, 2).reshape(videos * positions, frames, width))
        return x.reshape(videos, positions, frames, width).transpose(1, 2).reshape(rows, positions, width)


class GatedProjection(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * nn.functional.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.ModuleList([GatedProjection(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x):
        return self.net[2](self.net[0](x))


class TemporalBlock(nn.Module):
    def __init__(self, width, options):
        super().__init__()
        length = options["temporal_position_encoding_max_len"] if options["temporal_position_encoding"] else None
        kinds = options["attention_block_types"]
        self.attention_blocks = nn.ModuleList(
            TemporalAttention(width, options["num_attention_heads"], models.TEXT_WIDTH if kind == CROSS else None, length)
            for kind in kinds)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in kinds)
        self.ff, self.ff_norm = FeedForward(width), nn.LayerNorm(width)

    def forward(self, x, text, frames):
        for attention, norm in zip(self.attention_blocks, self.norms):
            x = x + attention(norm(x), text, frames)
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    """Input and output [B*F,C,H,W]; the GroupNorm works on every frame alone."""

    def __init__(self, channels, options):
        super().__init__()
        heads = options["num_attention_heads"]
        inner = heads * (channels // heads // options["temporal_attention_dim_div"])
        self.norm = nn.GroupNorm(models.GROUPS, channels, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(channels, inner), nn.Linear(inner, channels)
        self.transformer_blocks = nn.ModuleList(TemporalBlock(inner, options) for _ in range(options["num_transformer_block"]))

    def forward(self, x, text, frames):
        rows, channels, height, width = x.shape
        hidden = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            hidden = block(hidden, text, frames)
        return x + self.proj_out(hidden).transpose(1, 2).reshape(rows, channels, height, width)


def check_against_diffusers(module, x, expected):
    """The default case must equal diffusers' motion module with a per-frame norm."""
    other = AnimateDiffTransformer3D(
        num_attention_heads=8, attention_head_dim=CHANNELS // 8, in_channels=CHANNELS, norm_num_groups=models.GROUPS,
        cross_attention_dim=None, activation_fn="geglu", attention_bias=False, double_self_attention=True,
        positional_embeddings="sinusoidal", num_positional_embeddings=32).eval()
    state = {models.to_diffusers_key("." + key)[1:]: tensor for key, tensor in module.state_dict().items()}
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not unexpected and all("pos_embed" in key for key in missing), (missing, unexpected)
    other.norm = models.PerFrameNorm(other.norm)
    error = (other(x, num_frames=FRAMES) - expected).abs().max()
    print(f"  default case against diffusers: max difference {error:.1e}")
    assert error < 1e-5


@torch.no_grad()
def main():
    common.setup()
    tensors, metadata = {}, {}
    for index, changes in enumerate(CASES):
        name, options = f"case{index}", DEFAULT | changes
        rng = generator(f"motion options {index}")
        module = randomise(TemporalTransformer(CHANNELS, options), rng)
        x = randn(rng, BATCH * FRAMES, CHANNELS, SIDE, SIDE)
        text = randn(rng, BATCH, 77, models.TEXT_WIDTH) if CROSS in options["attention_block_types"] else None
        out = module(x, text, FRAMES)
        describe(name, out - x)
        if index == 0:
            check_against_diffusers(module, x, out)
        tensors.update({f"{name}.w.temporal_transformer.{key}": value for key, value in module.state_dict().items()})
        tensors.update({f"{name}.in": x, f"{name}.out": out} | ({f"{name}.text": text} if text is not None else {}))
        metadata[name] = options | {"frames": FRAMES, "groups": models.GROUPS, "cross_attention_dim": models.TEXT_WIDTH}
    save("motion_options", tensors, metadata)


if __name__ == "__main__":
    main()
