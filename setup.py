"""Packaging: the ranges below are what the package needs, requirements.txt what was tested."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="fuxictr_miss",
    version="0.1.0",
    description="MISS (arXiv 2111.15068) for every FuxiCTR model: multi-interest self-supervision",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[
        *find_packages(include=["fuxictr_miss*", "model_zoo*"]),
        "fuxictr_miss.shipped_config",
    ],
    package_dir={"fuxictr_miss.shipped_config": "config"},
    package_data={
        "fuxictr_miss": ["py.typed"],
        "fuxictr_miss.shipped_config": ["*.yaml", "*/*.yaml"],
    },
    entry_points={"console_scripts": ["fuxictr-miss = fuxictr_miss.commands.main:main"]},
    python_requires=">=3.10",
    install_requires=[
        "fuxictr>=2.3.10,<2.4",
        "torch>=2.4",
        "polars>=1.36.1,<2",  # FuxiCTR 2.3.10 reads CSV with arguments that polars 2 has removed
        "pandas>=2",
        "numpy>=1.26",
        "pyarrow>=16",
        "h5py>=3.8",
        "PyYAML>=6.0.1",
        "pydantic>=2.8",
        "filelock>=3.14",
        "tqdm>=4.60",
        "matplotlib>=3.7",
        "optuna>=5",
        "scikit-learn>=1.3",
        "scipy>=1.13",
        "ray>=2.52.1",  # FuxiCTR 2.3.10 imports what older ones do not have
    ],
    extras_require={
        # `Scorer` and `fuxictr-miss score` import nothing but these
        "serving": ["numpy>=1.26", "polars>=1.36.1,<2", "onnxruntime>=1.20"],
        "export": ["onnx>=1.17", "onnxscript>=0.7.1", "onnxruntime>=1.20"],
        "tensorboard": ["tensorboard>=2.15"],
        "wandb": ["wandb>=0.20"],
        "mlflow": ["mlflow>=2.10"],
        "dev": [
            *("pytest>=8", "pytest-xdist>=3.8", "hypothesis>=6", "ruff>=0.6", "mypy>=1.10"),
            *("fastapi>=0.110", "uvicorn>=0.29", "httpx>=0.27"),  # of examples/serving
        ],
    },
)
