#!/usr/bin/env python3
"""Writes the models that the GPU bench runs, from configurations alone: nothing is downloaded, weights are random.

    gpu_models.py --out DIR                   style, TAESD's two halves, the UNet of Stable Diffusion 1.5, all in fp16
    gpu_models.py --out DIR --tiny            the same in sizes that a processor runs at once
    gpu_models.py --out DIR --only unet --nogn

Random weights make noise of every picture and change no timing. Needs torch, diffusers and onnx, and for --check
onnxruntime and numpy: the UNet is 1.7 GB, which is why it is made on the machine that runs it. Takes seconds on a GPU,
half a minute without. Status 2: a package is missing, and the message names it.

Inputs and outputs are named as ComfyUI names them:

    style          image [batch,3,height,width], 0 to 1              -> styled, the same
    taesd_encoder  image [batch,3,height,width], -1 to 1             -> latent [batch,4,height/8,width/8]
    taesd_decoder  latent [batch,4,height,width]                     -> image [batch,3,height*8,width*8], -1 to 1
    unet           x [batch,4,height,width], timesteps [batch],
                   context [batch,tokens,768]                        -> h, as x

Height and width of the UNet's x are multiples of 8; for an image of 512x512 they are 64.
"""

import argparse
import json
import pathlib
import sys
import warnings

OPSET = 17
SEED = 1
# What is exported is run with other sizes later, so nothing of these is kept; 1 would be taken for a constant.
BATCH = 2


def need(*names):
    """Imports packages, or says which is missing and what to do."""
    import importlib

    missing, found = [], []
    for name in names:
        try:
            found.append(importlib.import_module(name))
        except ImportError as error:
            missing.append(f"{name} ({error})")
    if missing:
        print(
            f"{pathlib.Path(sys.argv[0]).name}: missing in {sys.executable}: {', '.join(missing)}. "
            "It needs torch 2.6 or newer, diffusers 0.35 or newer, onnx and onnxruntime: pip install torch diffusers "
            "onnx onnxruntime. Where there is no network, carry the wheels: diffusers (and importlib_metadata) are "
            "small and need nothing compiled.",
            file=sys.stderr,
        )
        sys.exit(2)
    return found if len(found) > 1 else found[0]


def quiet():
    """Tracing talks about every size that becomes a constant, which is what it is asked to do."""
    warnings.filterwarnings("ignore")


class Model:
    """A module, what goes in, and how large."""

    def __init__(self, name, module, inputs, outputs, dynamic, sizes):
        self.name, self.module = name, module
        # name -> function of (batch, sizes) that gives a shape, and the range of its values
        self.inputs, self.outputs = inputs, outputs
        self.dynamic, self.sizes = dynamic, sizes

    def example(self, batch, sizes=None, dtype=None, device="cpu", seed=SEED):
        """Seeded inputs: noise, since a GPU is faster on zeros."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        made = []
        for shape, (low, high) in self.inputs.values():
            noise = torch.rand(shape(batch, sizes or self.sizes), generator=generator)
            made.append((noise * (high - low) + low).to(device=device, dtype=dtype or torch.float16))
        return tuple(made)

    def parameters(self):
        return sum(weights.numel() for weights in self.module.parameters())


def style(tiny):
    """The network of models/style.onnx, in fp16 and for sizes that are multiples of 4."""
    import torch
    from torch import nn

    width = 4 if tiny else 16

    def layer(entries, results, size=3, stride=1, relu=True):
        parts = [
            nn.Conv2d(entries, results, size, stride, size // 2, padding_mode="reflect"),
            nn.InstanceNorm2d(results, eps=1e-3, affine=True),
        ]
        return nn.Sequential(*parts, *([nn.ReLU()] if relu else []))

    class Residual(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.branch = nn.Sequential(layer(width, width), layer(width, width, relu=False))

        def forward(self, x):
            return x + self.branch(x)

    class Style(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                layer(3, width, size=9),
                layer(width, width * 2, stride=2),
                layer(width * 2, width * 4, stride=2),
                Residual(width * 4),
                Residual(width * 4),
                nn.Upsample(scale_factor=2),
                layer(width * 4, width * 2),
                nn.Upsample(scale_factor=2),
                layer(width * 2, width),
                nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect"),
            )

        def forward(self, image):
            return (image + 0.35 * torch.tanh(self.net(image))).clamp(0.0, 1.0)

    size = 32 if tiny else 512
    return Model(
        "style",
        Style(),
        {"image": (lambda batch, s: (batch, 3, s["height"], s["width"]), (0.0, 1.0))},
        ["styled"],
        {name: {0: "batch", 2: "height", 3: "width"} for name in ["image", "styled"]},
        {"height": size, "width": size},
    )


def taesd(tiny, half):
    """One half of the small autoencoder."""
    from diffusers import AutoencoderTiny

    config = {}
    if tiny:
        widths = (8, 8, 8, 8)
        config = dict(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=(1, 1, 1, 1),
            num_decoder_blocks=(1, 1, 1, 1),
        )
    whole = AutoencoderTiny(**config)
    side = 32 if tiny else 512
    names = {0: "batch", 2: "height", 3: "width"}
    if half == "encoder":
        return Model(
            "taesd_encoder",
            whole.encoder,
            {"image": (lambda batch, s: (batch, 3, s["height"], s["width"]), (-1.0, 1.0))},
            ["latent"],
            {"image": names, "latent": {0: "batch", 2: "latent_height", 3: "latent_width"}},
            {"height": side, "width": side},
        )
    return Model(
        "taesd_decoder",
        whole.decoder,
        {"latent": (lambda batch, s: (batch, 4, s["height"], s["width"]), (-1.0, 1.0))},
        ["image"],
        {"latent": names, "image": {0: "batch", 2: "image_height", 3: "image_width"}},
        {"height": side // 8, "width": side // 8},
    )


def unet(tiny, nogn):
    """Stable Diffusion 1.5's UNet: 859.5 million weights, 0.8 TFLOP a call on 64x64 latents."""
    from diffusers import UNet2DConditionModel
    from torch import nn

    cross, side = (32, 16) if tiny else (768, 64)
    config = dict(sample_size=side, cross_attention_dim=cross)
    if tiny:
        config.update(
            block_out_channels=(16, 32),
            layers_per_block=1,
            attention_head_dim=4,
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
    else:
        # Called a dimension in the configuration, and the number of heads in the model.
        config.update(block_out_channels=(320, 640, 1280, 1280), attention_head_dim=8)

    class Named(nn.Module):
        """With ComfyUI's names, and a tensor for a result."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x, timesteps, context):
            return self.inner(x, timesteps, encoder_hidden_states=context, return_dict=False)[0]

    module = Named(UNet2DConditionModel(**config))
    if nogn:
        written_out(module)
    names = {0: "batch", 2: "height", 3: "width"}
    return Model(
        "unet",
        module,
        {
            "x": (lambda batch, s: (batch, 4, s["height"], s["width"]), (-1.7, 1.7)),
            "timesteps": (lambda batch, s: (batch,), (0.0, 999.0)),
            "context": (lambda batch, s: (batch, s["tokens"], cross), (-1.7, 1.7)),
        },
        ["h"],
        {"x": names, "h": names, "timesteps": {0: "batch"}, "context": {0: "batch", 1: "tokens"}},
        {"height": side, "width": side, "tokens": 77},
    )


def written_out(module):
    """Replaces each GroupNorm by its arithmetic in f32: exported as it is, it becomes an InstanceNormalization, which
    TensorRT 8 leaves to a plugin."""
    import torch
    from torch import nn

    class GroupNorm(nn.Module):
        def __init__(self, old):
            super().__init__()
            self.groups, self.eps, self.weight, self.bias = old.num_groups, old.eps, old.weight, old.bias

        def forward(self, x):
            flat = x.float().reshape(x.shape[0], self.groups, -1)
            centred = flat - flat.mean(2, keepdim=True)
            flat = centred * torch.rsqrt((centred * centred).mean(2, keepdim=True) + self.eps)
            sides = (1, -1) + (1,) * (x.dim() - 2)
            made = flat.reshape(x.shape) * self.weight.float().reshape(sides) + self.bias.float().reshape(sides)
            return made.to(x.dtype)

    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, GroupNorm(child))
        else:
            written_out(child)


def calm(module):
    """Scales the last layer of every residual branch: with weights as they are drawn, 25 branches in a row leave the
    range of fp16."""
    import torch

    last = ("conv2", "to_out.0", "proj_out", "net.2", "conv.4")
    with torch.no_grad():
        for name, part in module.named_modules():
            if name.endswith(last) and hasattr(part, "weight"):
                part.weight.mul_(0.2)
                if part.bias is not None:
                    part.bias.mul_(0.2)


MAKERS = {
    "style": lambda options: style(options.tiny),
    "taesd_encoder": lambda options: taesd(options.tiny, "encoder"),
    "taesd_decoder": lambda options: taesd(options.tiny, "decoder"),
    "unet": lambda options: unet(options.tiny, options.nogn),
}


def make(name, options, device="cpu"):
    """The model, its weights the same each time, in half precision."""
    import torch

    torch.manual_seed(SEED)
    model = MAKERS[name](options)
    calm(model.module)
    model.module.eval().requires_grad_(False).to(device=device, dtype=torch.float16)
    return model


def export(model, path, device):
    import torch

    # Small pictures: sizes are symbols in the file, and tracing runs the model once.
    small = {key: min(size, 128 if "image" in model.inputs else 16) for key, size in model.sizes.items()}
    small.update({key: size for key, size in model.sizes.items() if key == "tokens"})
    with torch.inference_mode(False), torch.no_grad():
        torch.onnx.export(
            model.module,
            model.example(BATCH, small, device=device),
            str(path),
            input_names=list(model.inputs),
            output_names=model.outputs,
            dynamic_axes=model.dynamic,
            opset_version=OPSET,
            dynamo=False,
        )


def check(model, path, device):
    """Largest difference between torch and ONNX Runtime on the processor, in two shapes; both have to be finite."""
    import torch

    ort, np = need("onnxruntime", "numpy")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    most = 0.0
    half = {key: size if key == "tokens" else size // 2 for key, size in model.sizes.items()}
    for batch, sizes in [(1, model.sizes), (3, half)]:
        inputs = model.example(batch, sizes, device=device)
        with torch.no_grad():
            wanted = model.module(*inputs).float().cpu().numpy()
        feed = {name: value.cpu().numpy() for name, value in zip(model.inputs, inputs)}
        got = session.run(None, feed)[0].astype(np.float32)
        if not (np.isfinite(wanted).all() and np.isfinite(got).all()):
            sys.exit(f"{model.name}, batch {batch}: not every number is finite")
        if got.std() < 1e-3:
            sys.exit(f"{model.name}, batch {batch}: the output is flat, which proves nothing")
        most = max(most, float(np.abs(got - wanted).max()))
    if most > 1e-2:
        sys.exit(f"{model.name}: differs from torch by {most:.4f}, more than 0.01")
    return most


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the .onnx files")
    parser.add_argument("--only", default=",".join(MAKERS), help="some of them, by comma")
    parser.add_argument("--tiny", action="store_true", help="small ones, for tests")
    parser.add_argument("--nogn", action="store_true", help="GroupNorm of the UNet written out, for TensorRT 8")
    parser.add_argument("--check", action="store_true", help="compare each with torch on the processor")
    parser.add_argument("--device", help="where it is traced: cuda when there is one, else cpu")
    options = parser.parse_args()
    torch, _, onnx = need("torch", "diffusers", "onnx")
    unknown = [name for name in options.only.split(",") if name not in MAKERS]
    if unknown:
        parser.error(f"--only {','.join(unknown)}: there are {', '.join(MAKERS)}")
    quiet()
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    options.out.mkdir(parents=True, exist_ok=True)
    listed = {}
    for name in options.only.split(","):
        model = make(name, options, device)
        path = options.out / f"{name}.onnx"
        export(model, path, device)
        inputs = {}
        for key, (shape, (low, high)) in model.inputs.items():
            inputs[key] = {"shape": list(shape(1, model.sizes)), "low": low, "high": high}
        listed[name] = {"parameters": model.parameters(), "sizes": model.sizes, "inputs": inputs}
        line = f"{path}: {path.stat().st_size / 1e6:.1f} MB, {model.parameters() / 1e6:.1f} M weights"
        if options.check:
            line += f", {check(model, path, device):.1e} from torch"
        norms = sum(node.op_type == "InstanceNormalization" for node in onnx.load(path).graph.node)
        if options.nogn and name == "unet" and norms:
            sys.exit(f"{path} has {norms} InstanceNormalization nodes left")
        print(line, flush=True)
    about = {"tiny": options.tiny, "dtype": "f16", "torch": torch.__version__, "models": listed}
    (options.out / "gpu_models.json").write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
