"What pip needs to know. All of it stands in settings.ini; nothing is said twice."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here/"settings.ini", encoding="utf-8")
about = config["DEFAULT"]
lib = about["lib_path"]
status = {"1": "Planning", "2": "Pre-Alpha", "3": "Alpha", "4": "Beta", "5": "Production/Stable"}[about["status"]]
readme = here/"README.md"
extras = {name.removesuffix("_requirements"): needs.split() for name, needs in about.items() if name.endswith("_requirements")}  # development needs them all

setup(
    name=about["lib_name"],
    version=about["version"],
    description=about["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else about["description"],
    long_description_content_type="text/markdown",
    author=about["author"],
    url=about["git_url"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=about["keywords"].split(),
    classifiers=[
        f"Development Status :: {about['status']} - {status}",
        f"Intended Audience :: {about['audience']}",
        f"Natural Language :: {about['language']}",
        "Programming Language :: Python :: 3",
    ],
    python_requires=f">={about['min_python']}",
    install_requires=about["requirements"].split(),
    extras_require=extras | {"dev": [need for needs in extras.values() for need in needs]},
    entry_points={"console_scripts": about["console_scripts"].split(), "nbdev": [f"{lib}={lib}._modidx:d"]},
    packages=find_packages(include=[lib, f"{lib}.*"]),
    package_data={lib: ["data/**/*"]},
    zip_safe=False,
)
