"""Rivals' architectures with random weights, to time them in the same run. Needs torch (the ``peers`` extra).

Weights do not change how long a graph takes; no accuracy can be read off these models. Written from the papers:
TinyViT (arXiv 2207.10666, table 1 and section 3.2) as MobileSAM uses it (arXiv 2306.14289, section 3.2); RepViT-M1
(arXiv 2307.09283) as EdgeSAM uses it (arXiv 2312.06660, section 3.2); ResNet-18 with an upsampling neck, NanoSAM; and
SAM's prompt encoder and mask decoder (arXiv 2304.02643, appendix A), which all three keep.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyseg.bench.peer_graphs import PeerGraphs

# TinyViT-5M: widths, depths, heads and attention windows of its four stages.
TINY_VIT_WIDTHS = (64, 128, 160, 320)
TINY_VIT_DEPTHS = (2, 2, 6, 2)
TINY_VIT_HEADS = (2, 4, 5, 10)
TINY_VIT_WINDOWS = (7, 7, 14, 7)
SAM_SIDE = 1024
SAM_DIM = 256


def conv_norm(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)
    )


class MBConv(nn.Module):
    """Expand by 4, depthwise, project, residual (TinyViT, section 3.2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = dim * 4
        self.layers = nn.Sequential(
            conv_norm(dim, hidden, 1), nn.GELU(), conv_norm(hidden, hidden, 3, groups=hidden), nn.GELU(),
            conv_norm(hidden, dim, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.gelu(x + self.layers(x))
        return y


class WindowAttention(nn.Module):
    """Attention inside windows with a learned bias for every pair of positions."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, dim * 3)
        self.out = nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.randn(heads, window**2, window**2) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        b, h, w, c = x.shape
        s = self.window
        ph, pw = -h % s, -w % s
        x = F.pad(x, (0, 0, 0, pw, 0, ph))
        rows, columns = (h + ph) // s, (w + pw) // s
        x = x.view(b, rows, s, columns, s, c).transpose(2, 3).reshape(b * rows * columns, s * s, c)
        q, k, v = self.qkv(self.norm(x)).view(-1, s * s, self.heads, 3 * c // self.heads).transpose(1, 2).chunk(3, -1)
        scores = (q * (q.shape[-1] ** -0.5)) @ k.transpose(-1, -2) + self.bias
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, s * s, c))
        y = y.view(b, rows, columns, s, s, c).transpose(2, 3).reshape(b, rows * s, columns * s, c)
        return y[:, :h, :w]


class TinyViTBlock(nn.Module):
    """Window attention, depthwise convolution, MLP (TinyViT, section 3.2)."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.attention = WindowAttention(dim, heads, window)
        self.local = conv_norm(dim, dim, 3, groups=dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = x.permute(0, 2, 3, 1)
        y = y + self.attention(y)
        y = self.local(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (y + self.mlp(y)).permute(0, 3, 1, 2)


class LayerNorm2d(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y


def sam_neck(cin: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, SAM_DIM, 1, bias=False), LayerNorm2d(SAM_DIM),
        nn.Conv2d(SAM_DIM, SAM_DIM, 3, padding=1, bias=False), LayerNorm2d(SAM_DIM),
    )  # fmt: skip


class MobileSamEncoder(nn.Module):
    """TinyViT-5M at 1024 px and SAM's neck: (1, 3, 1024, 1024) -> (1, 256, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        widths = TINY_VIT_WIDTHS
        layers: list[nn.Module] = [
            conv_norm(3, widths[0] // 2, 3, 2),
            nn.GELU(),
            conv_norm(widths[0] // 2, widths[0], 3, 2),
        ]
        layers += [MBConv(widths[0]) for _ in range(TINY_VIT_DEPTHS[0])]
        for stage in (1, 2, 3):
            cin, cout = widths[stage - 1], widths[stage]
            stride = 1 if stage == 3 else 2  # MobileSAM keeps the last stage at stride 16
            layers += [
                conv_norm(cin, cout, 1), nn.GELU(), conv_norm(cout, cout, 3, stride, groups=cout), nn.GELU(),
                conv_norm(cout, cout, 1),
            ]  # fmt: skip
            layers += [
                TinyViTBlock(cout, TINY_VIT_HEADS[stage], TINY_VIT_WINDOWS[stage])
                for _ in range(TINY_VIT_DEPTHS[stage])
            ]
        layers.append(sam_neck(widths[-1]))
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.layers(image)
        return y


# RepViT-M1: width and blocks of its four stages; all but the first begin with a block that halves the resolution.
REPVIT_STAGES = ((48, 3), (96, 4), (192, 16), (384, 3))


class SqueezeExcite(nn.Module):
    """Channel gates from the mean of the map (arXiv 1709.01507)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, dim // 4, 1), nn.ReLU(), nn.Conv2d(dim // 4, dim, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class RepVitBlock(nn.Module):
    """Depthwise token mixer (its branches merged into one convolution, as deployed), then a channel mixer."""

    def __init__(self, cin: int, cout: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        mixer: list[nn.Module] = [nn.Conv2d(cin, cin, 3, stride, 1, groups=cin)]
        if squeeze:
            mixer.append(SqueezeExcite(cin))
        if stride == 2:
            mixer.append(nn.Conv2d(cin, cout, 1))
        self.tokens = nn.Sequential(*mixer)
        self.channels = nn.Sequential(nn.Conv2d(cout, 2 * cout, 1), nn.GELU(), nn.Conv2d(2 * cout, cout, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        return x + self.channels(x)


class EdgeSamEncoder(nn.Module):
    """RepViT-M1 at 1024 px, its last two stages fused: (1, 3, 1024, 1024) -> (1, 256, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        first = REPVIT_STAGES[0][0]
        self.stem = nn.Sequential(nn.Conv2d(3, first // 2, 3, 2, 1), nn.GELU(), nn.Conv2d(first // 2, first, 3, 2, 1))
        stages, cin = [], first
        for stage, (width, blocks) in enumerate(REPVIT_STAGES):
            layers = []
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                # Every other block gates its channels, the downsampling and the last one do not.
                squeeze = i % 2 == (1 if stage > 0 else 0) and i < blocks - 1
                layers.append(RepVitBlock(cin, width, stride, squeeze))
                cin = width
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.fuse16 = nn.Conv2d(REPVIT_STAGES[2][0], SAM_DIM, 1, bias=False)
        self.fuse32 = nn.Conv2d(REPVIT_STAGES[3][0], SAM_DIM, 1, bias=False)
        self.neck = sam_neck(SAM_DIM)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        up = F.interpolate(self.fuse32(maps[3]), scale_factor=2.0, mode="bilinear")
        y: Tensor = self.neck(self.fuse16(maps[2]) + up)
        return y


class ResidualBlock(nn.Module):
    """ResNet's basic block (arXiv 1512.03385, figure 5), batch norm folded."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1)
        self.shortcut = nn.Identity() if stride == 1 and cin == cout else nn.Conv2d(cin, cout, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.conv2(F.relu(self.conv1(x))))


class NanoSamEncoder(nn.Module):
    """ResNet-18 at 1024 px and NanoSAM's upsampling neck: (1, 3, 1024, 1024) -> (1, 256, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        cin = 64
        for width in (64, 128, 256, 512):
            layers += [ResidualBlock(cin, width, 1 if width == 64 else 2), ResidualBlock(width, width, 1)]
            cin = width
        for _ in range(3):
            layers += [nn.Conv2d(cin, SAM_DIM, 3, 1, 1), nn.GELU()]
            cin = SAM_DIM
        layers += [nn.ConvTranspose2d(cin, cin, 3, 2, 1, 1), nn.GELU(), nn.Conv2d(cin, cin, 3, 1, 1), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(cin, SAM_DIM, 1))
        self.position = nn.Parameter(torch.zeros(1, SAM_DIM, 64, 64))

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.layers(image) + self.position
        return y


class SamAttention(nn.Module):
    def __init__(self, dim: int, inner: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = nn.Linear(dim, inner), nn.Linear(dim, inner), nn.Linear(dim, inner)
        self.out = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q(q), self.k(k), self.v(v)))
        y = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class SamLayer(nn.Module):
    """SAM's two-way layer (appendix A)."""

    def __init__(self) -> None:
        super().__init__()
        d = SAM_DIM
        self.self_attention = SamAttention(d, d)
        self.to_image, self.to_tokens = SamAttention(d, d // 2), SamAttention(d, d // 2)
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(d, 2048), nn.ReLU(), nn.Linear(2048, d))

    def forward(self, tokens: Tensor, image: Tensor, queries: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        q = tokens + queries
        tokens = self.norms[0](tokens + self.self_attention(q, q, tokens))
        tokens = self.norms[1](tokens + self.to_image(tokens + queries, image + pe, image))
        tokens = self.norms[2](tokens + self.mlp(tokens))
        image = self.norms[3](image + self.to_tokens(image + pe, tokens + queries, tokens))
        return tokens, image


class SamDecoder(nn.Module):
    """SAM's prompt encoder for points and its mask decoder: embedding + points -> four masks at 256 x 256, IoU."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        d = SAM_DIM
        self.register_buffer("frequencies", torch.randn(2, d // 2))
        self.labels = nn.Embedding(4, d)
        self.no_mask = nn.Parameter(torch.randn(1, d, 1, 1))
        self.outputs = nn.Parameter(torch.randn(1, 5, d))
        self.layers = nn.ModuleList(SamLayer() for _ in range(2))
        self.final = SamAttention(d, d // 2)
        self.norm = nn.LayerNorm(d)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(d, d // 4, 2, 2), LayerNorm2d(d // 4), nn.GELU(), nn.ConvTranspose2d(d // 4, d // 8, 2, 2),
            nn.GELU(),
        )  # fmt: skip
        self.mask_mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d // 8))
            for _ in range(4)
        )
        self.iou = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 4))
        grid = (torch.arange(64) + 0.5) / 64
        self.register_buffer("grid", torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1))

    def positions(self, xy: Tensor) -> Tensor:
        phase = (2 * xy - 1) @ self.frequencies * (2 * math.pi)
        return torch.cat((phase.sin(), phase.cos()), -1)

    def forward(self, embedding: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """embedding (1, 256, 64, 64), points (1, N, 2) in pixels of 1024, labels (1, N) -> (1, 4, 256, 256), (1, 4)."""
        prompt = self.positions(points / SAM_SIDE) + self.labels(labels.long())
        tokens = torch.cat((self.outputs, prompt), 1)
        image = (embedding + self.no_mask).flatten(2).transpose(1, 2)
        pe = self.positions(self.grid).flatten(0, 1)[None]  # type: ignore[arg-type]
        queries = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, queries, pe)
        tokens = self.norm(tokens + self.final(tokens + queries, image + pe, image))
        up = self.up(image.transpose(1, 2).unflatten(2, (64, 64)))
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.mask_mlps)], 1)
        return (weights @ up.flatten(2)).unflatten(2, (256, 256)), self.iou(tokens[:, 0])


def to_onnx(module: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> bytes:
    """Trace a module in eval mode into ONNX bytes."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(module.eval(), inputs, path, dynamo=False, opset_version=17, input_names=names)
        return path.read_bytes()


ENCODERS: dict[str, tuple[str, type[nn.Module]]] = {
    "mobilesam": ("MobileSAM", MobileSamEncoder),
    "edgesam": ("EdgeSAM", EdgeSamEncoder),
    "nanosam": ("NanoSAM", NanoSamEncoder),
}


def build_peer(name: str) -> PeerGraphs:
    """A rival's architecture with random weights as ONNX."""
    title, encoder_class = ENCODERS[name]
    torch.manual_seed(0)
    encoder = to_onnx(encoder_class(), (torch.zeros(1, 3, SAM_SIDE, SAM_SIDE),), ["image"])
    prompt = (
        torch.zeros(1, SAM_DIM, 64, 64),
        torch.tensor([[[100.0, 100.0], [900.0, 700.0]]]),
        torch.tensor([[2.0, 3.0]]),
    )
    decoder = to_onnx(SamDecoder(), prompt, ["image_embeddings", "point_coords", "point_labels"])
    return PeerGraphs(f"{title} (architecture, random weights)", encoder, decoder)
