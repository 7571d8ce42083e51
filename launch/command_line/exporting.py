"""``partial-fc export``."""

from __future__ import annotations

import argparse

from launch.config.section import user_path

FORMATS = {
    "onnx": "ONNX, for onnxruntime, TensorRT, Triton",
    "pt2": "torch.export's program, which needs no code of ours",
    "safetensors": "the weights, and what they are",
    "torch": "the plain state dict that arcface_torch's tools load",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is exported, how, and on which images the file is compared with the network."""
    help_text = "a run's folder, of which the last checkpoint is taken; a checkpoint's; or a file of weights"
    parser.add_argument("model", type=user_path, metavar="RUN|CHECKPOINT|WEIGHTS", help=help_text)
    told = "; ".join(f"{name}: {text}" for name, text in FORMATS.items())
    parser.add_argument("--format", choices=FORMATS, default="onnx", help=told)
    parser.add_argument("--out", type=user_path, metavar="FILE", help="RUN/export/NAME unless given")
    parser.add_argument("--raw-pixels", action="store_true", help="the file takes pixels from 0 to 255")
    parser.add_argument("--unit-length", action="store_true", help="the file gives embeddings of length 1")
    help_text = "of the weights and sums; int8 is calibrated on images, and for onnx alone"
    parser.add_argument("--precision", choices=["float32", "float16", "int8"], default="float32", help=help_text)
    help_text = "a set to compare on, and to calibrate on; unless given, the run's data.evaluate or data.train"
    parser.add_argument("--images", type=user_path, metavar="SET", help=help_text)
    parser.add_argument("--check", type=int, default=2000, metavar="N", help="images that are compared (2000); 0: none")
    parser.add_argument("--input-size", type=int, metavar="PIXELS", help="for weights that do not say it")
    parser.add_argument("--licence", default="", help="a text that the file keeps")
