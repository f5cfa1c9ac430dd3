"""The student: a MobileNetV2 encoder with a feature pyramid and a prompt-rasterising two-way decoder.

Encoder   image (B, 3, H, W) float32 RGB in [-1, 1], H and W multiples of 32
          -> embedding (B, 128, H/16, W/16), skip8 (B, 64, H/8, W/8), skip4 (B, 32, H/4, W/4)
Decoder   features of one image (or of B images) + B prompts -> logits (B, 4, H/4, W/4), IoU (B, 4)

Every length is in pixels of the model's input. Mask 0 is the answer to an unambiguous prompt; masks 1 to 3 are
the three readings of an ambiguous one (SAM, arXiv 2304.02643, section 3 and appendix A).

Sources: MobileNetV2 (arXiv 1801.04381); the feature pyramid (arXiv 1612.03144); the two-way transformer and the
mask tokens (SAM, appendix A). Rasterised prompts are what interactive segmentation used before SAM (RITM, arXiv
2102.06583, section 3.2); with little data they learn several times faster than sparse tokens alone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyseg.distill.shape import MOBILENET_V2_STAGES, SIZES, StudentShape
from tinyseg.errors import DataError, InputError
from tinyseg.geometry import LOGIT_STRIDE, MEAN, STD
from tinyseg.npz import read_npz
from tinyseg.prompts.layout import LABEL_BOX_BOTTOM_RIGHT, LABEL_BOX_TOP_LEFT, LABEL_NEGATIVE, LABEL_POSITIVE

TAPPED_STAGES = (1, 2, 4, 6)  # the last ones at strides 4, 8, 16 and 32


EMBED_DIM = 128
SKIP8_DIM = 64
SKIP4_DIM = 32
MOST_BACKBONE_BYTES = 256 << 20  # MobileNetV2 has 14 MB
NUM_MASKS = 4  # one for unambiguous prompts, three readings of an ambiguous one
RASTER_CHANNELS = 8

# Positions are divided by this, so that they mean the same for every input size and aspect.
POSITION_UNIT = 512.0


def normalise(image: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float, as the encoder takes it: channels last in memory."""
    return ((image.permute(0, 3, 1, 2).float() - MEAN) / STD).contiguous(memory_format=torch.channels_last)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, optional activation."""

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU6
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(cout),
        ]
        if act is not None:
            layers.append(act())
        super().__init__(*layers)


class InvertedResidual(nn.Module):
    """Expand, depthwise, project (MobileNetV2, figure 3)."""

    def __init__(self, cin: int, cout: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = cin * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNorm(cin, hidden, 1))
        layers.append(ConvNorm(hidden, hidden, 3, stride, groups=hidden))
        layers.append(ConvNorm(hidden, cout, 1, act=None))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class DepthwiseBlock(nn.Module):
    """Residual block: depthwise k x k, expand, ReLU, project. Batch norm folds away at export."""

    def __init__(self, dim: int, kernel: int, expansion: int = 2) -> None:
        super().__init__()
        self.depthwise = ConvNorm(dim, dim, kernel, groups=dim, act=None)
        self.expand = ConvNorm(dim, dim * expansion, 1, act=nn.ReLU)
        self.project = ConvNorm(dim * expansion, dim, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.expand(self.depthwise(x)))
        return x + y


class Encoder(nn.Module):
    """Image to embedding at stride 16 and two skips at strides 8 and 4."""

    def __init__(self, shape: StudentShape) -> None:
        super().__init__()
        self.frozen = 0
        width = shape.width
        self.width = width
        self.stem = ConvNorm(3, 32 * width, 3, 2)
        blocks: list[nn.Module] = []
        channels = 32 * width
        for (expansion, cout, _, stride), repeats in zip(MOBILENET_V2_STAGES, shape.repeats):
            for i in range(repeats):
                blocks.append(InvertedResidual(channels, cout * width, stride if i == 0 else 1, expansion))
                channels = cout * width
        self.blocks = nn.ModuleList(blocks)
        self.kept_blocks = shape.kept_blocks
        # Indices into `blocks` after which the stride-4, 8, 16 and 32 features are complete.
        self.taps = tuple(sum(shape.repeats[: stage + 1]) - 1 for stage in TAPPED_STAGES)
        self.lateral32 = ConvNorm(320 * width, EMBED_DIM, 1, act=None)
        self.context = nn.Linear(EMBED_DIM, EMBED_DIM)
        self.block32 = DepthwiseBlock(EMBED_DIM, 7)
        self.lateral16 = ConvNorm(96 * width, EMBED_DIM, 1, act=None)
        self.block16 = DepthwiseBlock(EMBED_DIM, 5)
        self.lateral8 = ConvNorm(32 * width, SKIP8_DIM, 1, act=None)
        self.down8 = ConvNorm(EMBED_DIM, SKIP8_DIM, 1, act=None)
        self.block8 = DepthwiseBlock(SKIP8_DIM, 3, expansion=1)
        self.lateral4 = ConvNorm(24 * width, SKIP4_DIM, 1, act=None)
        self.down4 = ConvNorm(SKIP8_DIM, SKIP4_DIM, 1, act=None)

    def freeze(self, blocks: int) -> None:
        """Keep the stem and the first blocks of the backbone as they are: no gradients, no new batch statistics.

        They see the largest maps: a third of a training step goes into them, and they change least.
        """
        if not 0 <= blocks <= len(self.blocks):
            raise InputError(f"--freeze takes 0 to {len(self.blocks)} blocks of this backbone, got {blocks}")
        self.frozen = blocks
        for module in [self.stem, *self.blocks[:blocks]] if blocks else []:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Encoder:
        super().train(mode)
        for module in [self.stem, *self.blocks[: self.frozen]] if self.frozen else []:
            module.eval()
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(image)
        taps: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                taps.append(x)
        c4, c8, c16, c32 = taps
        p32 = self.lateral32(c32)
        p32 = p32 + self.context(p32.mean((2, 3)))[:, :, None, None]  # what the whole frame shows
        p32 = self.block32(p32)
        p16 = self.block16(self.lateral16(c16) + upsample2(p32))
        p8 = self.block8(self.lateral8(c8) + upsample2(self.down8(p16)))
        p4 = self.lateral4(c4) + upsample2(self.down4(p8))
        return p16, p8, p4


def upsample2(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Attention(nn.Module):
    """Multi-head attention among tokens (SAM, appendix A)."""

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """q, k, v (B, n, dim), bias (B, 1, 1, n) added to the scores -> (B, n, dim)."""
        q, k, v = (split_heads(p, self.heads) for p in (self.q(q), self.k(k), self.v(v)))
        scores = (q * (q.shape[-1] ** -0.5)) @ k.transpose(-1, -2) + bias  # (B, heads, n, n)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, n, heads * d) -> (B, heads, n, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class CrossAttention(nn.Module):
    """Tokens look at the image and, if asked for, the image looks back at the tokens.

    The image keeps its (B, C, h, w) layout: its keys, values and queries come from one 1x1 convolution and meet the
    tokens as (B, heads, d, h*w), so no engine has to transpose a feature map. Projections of the positional encoding
    do not depend on the prompt; engines fold them into constants.
    """

    def __init__(self, dim: int, inner: int, heads: int = 4, both_ways: bool = True) -> None:
        super().__init__()
        self.heads, self.inner, self.both_ways = heads, inner, both_ways
        self.image_kvq = nn.Conv2d(dim, inner * (3 if both_ways else 2), 1)
        self.position_k = nn.Conv2d(dim, inner, 1, bias=False)
        self.token_q = nn.Linear(dim, inner)
        self.token_out = nn.Linear(inner, dim)
        if both_ways:
            self.position_q = nn.Conv2d(dim, inner, 1, bias=False)
            self.token_k = nn.Linear(dim, inner)
            self.token_v = nn.Linear(dim, inner)
            self.image_out = nn.Conv2d(inner, dim, 1)

    def project_image(self, image: Tensor, pe: Tensor) -> tuple[Tensor, ...]:
        """image (B, C, h, w), pe (1, C, h, w) -> k, v and, both ways, q, each (B, heads, d, h*w)."""
        parts = list(self.image_kvq(image).split(self.inner, 1))
        parts[0] = parts[0] + self.position_k(pe)
        if self.both_ways:
            parts[2] = parts[2] + self.position_q(pe)
        return tuple(p.flatten(2).unflatten(1, (self.heads, -1)) for p in parts)

    def to_tokens(self, queries: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """queries (B, n, C), k and v (B, heads, d, h*w) -> (B, n, C)."""
        q = split_heads(self.token_q(queries), self.heads)  # (B, heads, n, d)
        scores = (q * (q.shape[-1] ** -0.5)) @ k  # (B, heads, n, h*w)
        y = scores.softmax(-1) @ v.transpose(-1, -2)
        return self.token_out(y.transpose(1, 2).flatten(2))

    def to_image(self, q: Tensor, keys: Tensor, values: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
        """q (B, heads, d, h*w), keys and values (B, n, C), bias (B, 1, n, 1) -> (B, C, h, w)."""
        k = split_heads(self.token_k(keys), self.heads)  # (B, heads, n, d)
        v = split_heads(self.token_v(values), self.heads)
        scores = (k * (k.shape[-1] ** -0.5)) @ q + bias  # (B, heads, n, h*w)
        y = v.transpose(-1, -2) @ scores.softmax(-2)  # (B, heads, d, h*w)
        return self.image_out(y.flatten(1, 2).unflatten(2, size))


class TwoWayLayer(nn.Module):
    """Tokens look at each other and the image, the image looks at the tokens, then the image mixes locally.

    SAM's layer (appendix A) plus a large depthwise block: without it, image positions only exchange what passes
    through the tokens, and a rasterised prompt would not spread.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.self_attention = Attention(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.cross = CrossAttention(dim, dim // 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.ReLU(), nn.Linear(dim * 4, dim))
        self.norm3 = nn.LayerNorm(dim)
        self.block = DepthwiseBlock(dim, 7)

    def forward(
        self, tokens: Tensor, image: Tensor, queries: Tensor, pe: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """tokens and queries (B, n, C), image (B, C, h, w), pe (1, C, h, w), bias (B, 1, 1, n)."""
        q = tokens + queries
        tokens = self.norm1(tokens + self.self_attention(q, q, tokens, bias))
        image_k, image_v, image_q = self.cross.project_image(image, pe)
        tokens = self.norm2(tokens + self.cross.to_tokens(tokens + queries, image_k, image_v))
        tokens = self.norm3(tokens + self.mlp(tokens))
        size = (image.shape[-2], image.shape[-1])
        image = image + self.cross.to_image(image_q, tokens + queries, tokens, bias.transpose(-1, -2), size)
        return tokens, self.block(image)


class ScoreHead(nn.Module):
    """Predicted IoU of masks that it sees: a small network over what describes each of them.

    SAM's head (appendix A) reads one token, which is done before the masks are drawn. This one also gets every mask's own token,
    the decoder's last features averaged over the mask and along its outline (Mask Scoring R-CNN, arXiv 1903.00241, feeds
    mask and features to its head likewise), its shape in a few figures, and how far the four masks agree.
    """

    # Tokens of the mask and of the IoU; features over the mask, along its outline and of the whole view; the older head's
    # logit; eight figures; overlap with each of the masks, the share that lies in each, and the sum of the overlaps.
    FEATURES = 2 * EMBED_DIM + 3 * SKIP4_DIM + 1 + 8 + 2 * NUM_MASKS + 1
    OLDER = 2 * EMBED_DIM + 3 * SKIP4_DIM  # where the older head's logit lies

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mask_bias = nn.Parameter(torch.zeros(NUM_MASKS, width))
        self.inner = nn.Linear(self.FEATURES, width)
        self.together = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, described: Tensor) -> Tensor:
        """What describe() says, (B, 4, FEATURES) -> logits of the predicted IoU, (B, 4)."""
        x = F.relu(self.inner(described) + self.mask_bias)
        x = x + self.together(x.mean(1, keepdim=True))  # readings are judged beside each other
        return self.score(F.relu(self.outer(x))).squeeze(-1)

    @staticmethod
    def describe(logits: Tensor, features: Tensor, tokens: Tensor, iou: Tensor) -> Tensor:
        """Four masks in figures: (B, 4, FEATURES), smooth in all inputs, so that no engine's rounding makes them jump.

        logits (B, 4, h, w), features (B, 32, h, w) that they were read from, tokens (B, 5, 128), iou (B, 4): logits of the
        older head.
        """
        p = logits.sigmoid()
        outline = p * (1.0 - p) * 4.0
        area, doubt = p.sum((2, 3)), outline.sum((2, 3))  # (B, 4), in cells
        weights = torch.cat((p, outline), 1).flatten(2).transpose(1, 2)  # (B, h*w, 8)
        pooled = (features.flatten(2) @ weights).transpose(1, 2)  # (B, 8, 32)
        pooled = pooled / (torch.cat((area, doubt), 1) + 1e-3).unsqueeze(-1)
        flat = p.flatten(2)
        common = flat @ flat.transpose(1, 2)  # (B, 4, 4)
        overlap = common / (area.unsqueeze(2) + area.unsqueeze(1) - common + 1.0)
        contained = common / (area.unsqueeze(2) + 1.0)
        root, share = (area + 1.0).sqrt(), p.mean((2, 3))
        turns = (p[..., 1:] - p[..., :-1]).abs().sum((2, 3)) + (p[:, :, 1:] - p[:, :, :-1]).abs().sum((2, 3))
        border = p[:, :, 0].sum(2) + p[:, :, -1].sum(2) + p[..., 0].sum(2) + p[..., -1].sum(2)
        figures = (
            (share + 1e-4).log(), (area + 1.0).log(), share.sqrt(), doubt / (area + 1.0), turns / root, border / root,
            logits.clamp(-12.0, 12.0).abs().mean((2, 3)), logits.clamp(0.0, 12.0).sum((2, 3)) / (area + 1.0),
        )  # fmt: skip
        view = features.mean((2, 3)).unsqueeze(1)
        return torch.cat(
            (
                tokens[:, 1:], torch.cat([tokens[:, :1]] * NUM_MASKS, 1), pooled[:, :NUM_MASKS], pooled[:, NUM_MASKS:],
                torch.cat([view] * NUM_MASKS, 1), iou.unsqueeze(-1), torch.stack(figures, -1), overlap, contained,
                overlap.sum(2, keepdim=True),
            ), -1,
        )  # fmt: skip


class Decoder(nn.Module):
    """Prompts and features to mask logits and predicted IoU."""

    frequencies: Tensor

    def __init__(self, layers: int, score_width: int = 0) -> None:
        super().__init__()
        dim = EMBED_DIM
        # Random Fourier features (SAM, appendix A), fixed by a seed so that every run shares them.
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", torch.randn(2, dim // 2, generator=generator) * 2.0)
        self.output_tokens = nn.Parameter(torch.randn(1 + NUM_MASKS, dim) * 0.02)
        self.label_embedding = nn.Embedding(5, dim)  # index = label + 1
        nn.init.normal_(self.label_embedding.weight, std=0.02)
        self.raster16 = nn.Sequential(nn.Conv2d(RASTER_CHANNELS, dim, 4, 4), nn.ReLU(), nn.Conv2d(dim, dim, 1))
        self.raster8 = nn.Conv2d(RASTER_CHANNELS, SKIP8_DIM, 2, 2)
        self.raster4 = nn.Conv2d(RASTER_CHANNELS, SKIP4_DIM, 1)
        self.layers = nn.ModuleList([TwoWayLayer(dim) for _ in range(layers)])
        self.final_attention = CrossAttention(dim, dim // 2, both_ways=False)
        self.final_norm = nn.LayerNorm(dim)
        self.up8 = ConvNorm(dim, SKIP8_DIM, 1, act=None)
        self.block8 = DepthwiseBlock(SKIP8_DIM, 5, expansion=1)
        self.up4 = ConvNorm(SKIP8_DIM, SKIP4_DIM, 1, act=None)
        self.block4 = DepthwiseBlock(SKIP4_DIM, 3, expansion=1)
        self.mask_mlps = nn.ModuleList(
            [nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, SKIP4_DIM + 1)) for _ in range(NUM_MASKS)]
        )
        self.iou_head = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, NUM_MASKS)
        )
        self.score_head = ScoreHead(score_width) if score_width else None

    def encode_positions(self, xy: Tensor) -> Tensor:
        """(..., 2) positions in pixels -> (..., C) random Fourier features."""
        phase = (xy * (2.0 / POSITION_UNIT) - 1.0) @ self.frequencies * (2.0 * math.pi)
        return torch.cat((phase.sin(), phase.cos()), -1)

    def forward(
        self,
        embedding: Tensor,
        skip8: Tensor,
        skip4: Tensor,
        points: Tensor,
        labels: Tensor,
        mask: Tensor,
        has_mask: Tensor,
        origin: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts.

        embedding (1 or B, 128, h, w), skip8 (1 or B, 64, 2h, 2w), skip4 (1 or B, 32, 4h, 4w): the encoder's outputs.
        points (B, N, 2): x, y in pixels of the model input. labels (B, N) float: 1 positive, 0 negative, 2 and 3 the
        box's corners, -1 padding, which changes nothing. mask (B, 1, 4h, 4w): logits of an earlier mask, read only
        where has_mask (B,) is 1. origin (2,): added to every position before it is encoded (training only: crops
        smaller than the shipped input then still meet every position).
        Returns logits (B, 4, 4h, 4w) and predicted IoU (B, 4) in [0, 1].
        """
        logits, iou, _ = self.decode(embedding, skip8, skip4, points, labels, mask, has_mask, origin)
        return logits, iou

    def decode(
        self,
        embedding: Tensor,
        skip8: Tensor,
        skip4: Tensor,
        points: Tensor,
        labels: Tensor,
        mask: Tensor,
        has_mask: Tensor,
        origin: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As ``forward``, and the output tokens (B, 5, 128) that the answers are read from: the IoU's, then the masks'."""
        raster = rasterize_prompt(points, labels, mask, has_mask)  # (B, 8, 4h, 4w)
        drawn = self.raster16(raster), self.raster8(raster), self.raster4(raster)
        return self.answer(embedding, skip8, skip4, points, labels, drawn, origin)

    def answer(
        self,
        embedding: Tensor,
        skip8: Tensor,
        skip4: Tensor,
        points: Tensor,
        labels: Tensor,
        drawn: tuple[Tensor, Tensor, Tensor],
        origin: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As ``decode``, of prompts that are drawn already: what they add to embedding, skip8 and skip4."""
        h, w = embedding.shape[-2:]
        drawn16, drawn8, drawn4 = drawn
        image = embedding + drawn16

        shift = torch.zeros(2, device=points.device) if origin is None else origin
        pe = self.encode_positions(pixel_centres(h, w, 16.0, points.device) + shift)
        pe = pe.permute(2, 0, 1).unsqueeze(0)  # (1, C, h, w)
        label_index = (labels + 1.0).long()
        real = (label_index > 0).unsqueeze(-1).to(pe.dtype)  # (B, N, 1)
        point_tokens = (self.encode_positions(points + shift) + self.label_embedding(label_index)) * real
        outputs = self.output_tokens.unsqueeze(0).expand(points.shape[0], -1, -1)
        tokens = torch.cat((outputs, point_tokens), 1)  # (B, 5 + N, C)
        # Padding takes no part in any attention, so the number of padded slots cannot change a mask.
        padding = F.pad((labels < 0).to(pe.dtype), (1 + NUM_MASKS, 0))
        bias = padding[:, None, None, :] * -1e4

        queries = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, queries, pe, bias)
        k, v = self.final_attention.project_image(image, pe)
        tokens = self.final_norm(tokens + self.final_attention.to_tokens(tokens + queries, k, v))

        y = self.block8(F.relu(upsample2(self.up8(image)) + skip8 + drawn8))
        y = self.block4(F.relu(upsample2(self.up4(y)) + skip4 + drawn4))  # (B, 32, 4h, 4w)
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.mask_mlps)], 1)  # (B, 4, 33)
        logits = (weights[..., :SKIP4_DIM] @ y.flatten(2) + weights[..., SKIP4_DIM:]).unflatten(2, (4 * h, 4 * w))
        tokens = tokens[:, : 1 + NUM_MASKS]
        iou = self.iou_head(tokens[:, 0])
        if self.score_head is not None:
            # Masks do not learn to please who judges them.
            iou = self.score_head(ScoreHead.describe(logits.detach(), y.detach(), tokens.detach(), iou.detach()))
        return logits, iou.sigmoid(), tokens


def pixel_centres(h: int, w: int, stride: float, device: torch.device) -> Tensor:
    """(h, w, 2) centres of a feature map's cells, x then y, in pixels of the model input."""
    ys = (torch.arange(h, device=device, dtype=torch.float32) + 0.5) * stride
    xs = (torch.arange(w, device=device, dtype=torch.float32) + 0.5) * stride
    return torch.stack((xs.unsqueeze(0).expand(h, w), ys.unsqueeze(1).expand(h, w)), -1)


def rasterize_prompt(points: Tensor, labels: Tensor, mask: Tensor, has_mask: Tensor) -> Tensor:
    """Draw prompts at stride 4: (B, N, 2), (B, N), (B, 1, H, W), (B,) -> (B, 8, H, W).

    Channels: positive clicks as a narrow and a wide bump, negative clicks likewise, the box's interior, a ramp from
    the box's edge (0) to its centre (1), the earlier mask squashed to [-1, 1], and whether there is one.
    """
    h, w = mask.shape[-2:]
    xs = (torch.arange(w, device=points.device, dtype=torch.float32) + 0.5) * float(LOGIT_STRIDE)  # (W,)
    ys = (torch.arange(h, device=points.device, dtype=torch.float32) + 0.5) * float(LOGIT_STRIDE)
    # Squared distances in units of 32 px, so that they also fit half precision.
    dx = ((xs - points[..., :1]) / 32.0).square().unsqueeze(-2)  # (B, N, 1, W)
    dy = ((ys - points[..., 1:]) / 32.0).square().unsqueeze(-1)  # (B, N, H, 1)

    channels = []
    for label in (LABEL_POSITIVE, LABEL_NEGATIVE):
        far = (labels != label).to(dx.dtype)[..., None, None] * 1e3
        nearest = ((dx + far) + dy).amin(1, keepdim=True)  # (B, 1, H, W)
        channels.append((nearest * -16.0).exp())  # falls to 1/e at 8 px
        channels.append((nearest * -1.0).exp())  # falls to 1/e at 32 px

    first = (labels == LABEL_BOX_TOP_LEFT).to(dx.dtype).unsqueeze(-1)
    last = (labels == LABEL_BOX_BOTTOM_RIGHT).to(dx.dtype).unsqueeze(-1)
    has_box = first.amax(1)[..., None, None]  # (B, 1, 1, 1)
    x0y0 = (points * first).sum(1)  # (B, 2)
    x1y1 = (points * last).sum(1)
    centre = (x0y0 + x1y1) / 2
    half = (x1y1 - x0y0).clamp(min=2.0) / 2
    u = (xs - centre[:, :1]).abs()[:, None, None, :]  # (B, 1, 1, W)
    v = (ys - centre[:, 1:]).abs()[:, None, :, None]
    half_w, half_h = half[:, 0, None, None, None], half[:, 1, None, None, None]
    inside_x = ((half_w - u) / float(LOGIT_STRIDE) + 0.5).clamp(0.0, 1.0)  # a cell on the edge is covered in part
    inside_y = ((half_h - v) / float(LOGIT_STRIDE) + 0.5).clamp(0.0, 1.0)
    channels.append(inside_x * inside_y * has_box)
    channels.append(torch.minimum((1.0 - u / half_w).clamp(min=0.0), (1.0 - v / half_h).clamp(min=0.0)) * has_box)

    given = has_mask[:, None, None, None]
    channels.append((mask * 0.25).tanh() * given)
    channels.append(given.expand(-1, 1, h, w))
    return torch.cat(channels, 1)


class Student(nn.Module):
    """Encoder and decoder together, the unit that is trained and saved."""

    def __init__(self, shape: StudentShape = SIZES["base"]) -> None:
        super().__init__()
        self.shape = shape
        self.norms_frozen = False
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape.decoder_layers, shape.score_width)

    def freeze_norms(self) -> None:
        """Let every batch norm use the statistics that it has, in training too; scale and shift go on learning.

        In training mode each round of prompts is normalised by its own statistics, but a model that is exported has one set for
        all of them: a finetune with frozen norms learns to make do with that set.
        """
        self.norms_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Student:
        super().train(mode)
        if self.norms_frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


def put_norms_back(root: nn.Module, biases: Mapping[str, Tensor], run: Callable[[], object]) -> None:
    """Give convolutions whose norm was folded into them their norm back, without changing what they compute.

    biases: what folding left each ConvNorm of ``root`` to add, by its name. run: calls the module once on real samples;
    every norm takes the mean and variance that it then meets, and scale and shift to undo them.
    """

    def measure(norm: nn.BatchNorm2d, bias: Tensor) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_conv: nn.Module, _inputs: object, output: Tensor) -> None:
            var, mean = torch.var_mean(output.float(), (0, 2, 3), correction=0)
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var)
            norm.weight.copy_((var + norm.eps).sqrt())
            norm.bias.copy_(mean + bias.to(mean.device))

        return hook

    hooks = []
    for name, layer in root.named_modules():
        if name in biases:
            assert isinstance(layer, ConvNorm) and isinstance(layer[1], nn.BatchNorm2d)
            hooks.append(layer[0].register_forward_hook(measure(layer[1], biases[name])))
    was_training = root.training
    root.eval()
    with torch.no_grad():
        run()
    root.train(was_training)
    for hook in hooks:
        hook.remove()


def load_backbone(encoder: Encoder, path: Path, images: Tensor) -> None:
    """Load a MobileNetV2 whose batch norm was folded into its convolutions, and put the batch norm back.

    path: an npz with ``convNN.weight`` (OIHW) and ``convNN.bias``, 51 convolutions in forward order. images (B, 3, H,
    W) in [-1, 1], a few real photos: every batch norm takes the mean and variance of its convolution on them, and
    scale and shift such that the function is unchanged. Raises InputError.
    """
    try:
        arrays = read_npz(path.read_bytes(), MOST_BACKBONE_BYTES)
    except OSError as exc:
        raise InputError(f"--backbone {path} cannot be read: {exc.strerror or exc}") from exc
    except DataError as exc:
        raise InputError(f"--backbone {path} {exc}; give an npz with MobileNetV2 weights") from exc
    # The file numbers the convolutions of the whole MobileNetV2; a smaller student leaves blocks out.
    whole = Encoder(StudentShape())
    numbers: dict[str, int] = {}
    for name, module in (("stem", whole.stem), *((f"blocks.{i}", b) for i, b in enumerate(whole.blocks))):
        for inner, m in module.named_modules(prefix=name):
            if isinstance(m, ConvNorm):
                numbers[inner] = len(numbers)
    biases = {}
    with torch.no_grad():
        for name, layer in encoder.named_modules():
            number = numbers.get(whole_name(name, encoder.kept_blocks))
            if number is not None:
                assert isinstance(layer, ConvNorm) and isinstance(layer[0], nn.Conv2d)
                try:
                    weight, bias = (torch.from_numpy(arrays[f"conv{number:02d}.{part}"]) for part in ("weight", "bias"))
                    layer[0].weight.copy_(widened(f"{name}.0.weight", weight, encoder.width))
                    biases[name] = widened(f"{name}.0.bias", bias, encoder.width)
                    biases[name].expand(layer[0].out_channels)
                except (KeyError, TypeError, RuntimeError) as exc:  # missing, no numbers, or of another shape
                    raise InputError(
                        f"--backbone {path} does not hold MobileNetV2: conv{number:02d}.weight and .bias are missing or of "
                        "another shape; give an npz with its 51 convolutions"
                    ) from exc
    put_norms_back(encoder, biases, lambda: encoder(images))


def whole_name(name: str, kept_blocks: Sequence[int]) -> str:
    """A module's or parameter's name in the encoder of a shape -> its name in the whole MobileNetV2's."""
    parts = name.split(".")
    if parts[0] == "blocks" and len(parts) > 1:
        parts[1] = str(kept_blocks[int(parts[1])])
    return ".".join(parts)


def widened(name: str, value: Tensor, factor: int) -> Tensor:
    """A parameter of an encoder, by its name in it, for a backbone ``factor`` times as wide that computes the same.

    Every channel is there several times, and what reads it divides its weight among them (Net2Net, arXiv 1511.05641,
    section 2.2), by random shares: with equal ones they would learn the same for ever.
    """
    layer, _, part = name.rpartition(".")
    part_of_encoder = layer.partition(".")[0]
    if factor == 1 or value.ndim == 0 or not part_of_encoder.startswith(("stem", "blocks", "lateral")):
        return value
    if not part_of_encoder.startswith("lateral"):  # laterals lead out of the backbone
        value = value.repeat(factor, *[1] * (value.ndim - 1))
    reads_one = value.ndim == 4 and value.shape[1] == 1  # depthwise: every channel reads its own
    if part != "weight" or value.ndim != 4 or reads_one or part_of_encoder == "stem":
        return value
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    shares = 0.5 + torch.rand(factor, *value.shape, generator=generator)
    shares = shares / shares.sum(0)
    return torch.cat([value * share.to(value) for share in shares], 1)
