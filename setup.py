"""Package metadata comes from settings.ini, the one place where it is kept."""

import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
ini = ConfigParser(delimiters=["="])
ini.read(here / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]
lib = cfg["lib_name"]


class BuildWithCourse(build_py):
    "A wheel carries the notebooks, so that `kdmedlearn notebooks DIR` works without a checkout."

    def run(self):
        super().run()
        if self.editable_mode:
            return
        shutil.copytree(
            here / "nbs",
            Path(self.build_lib) / lib / "notebooks",
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(".ipynb_checkpoints", "*.yml", ".*", "runs"),
        )


setup(
    version=cfg["version"],
    description=cfg["description"],
    keywords=cfg["keywords"].split(),
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license_expression="Apache-2.0",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    classifiers=[
        "Programming Language :: Python :: 3",
        "Framework :: Jupyter",
        "Intended Audience :: Education",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_packages(include=[lib, lib + ".*"]),
    package_data={lib: ["assets/*", "py.typed"]},
    install_requires=cfg["requirements"].split(),
    extras_require={
        "dev": cfg["dev_requirements"].split(),
        "smote": cfg["smote_requirements"].split(),
        "segment": cfg["segment_requirements"].split(),
        "medmnist": cfg["medmnist_requirements"].split(),
        "dicom": cfg["dicom_requirements"].split(),
        "teachers": cfg["teachers_requirements"].split(),
        "tune": cfg["tune_requirements"].split(),
        "export": cfg["export_requirements"].split(),
        "openvino": cfg["openvino_requirements"].split(),
    },
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{lib}={lib}._modidx:d"],
    },
    cmdclass={"build_py": BuildWithCourse},
)
