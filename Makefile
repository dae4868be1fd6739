# `make demo` and `make test` need only Python 3.11+ and a C compiler: everything else is put into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NATIVE := $(wildcard codec_ext/*.pyx codec_ext/*.c codec_ext/*.h codec_ext/*.pxd) setup.py pyproject.toml

.PHONY: demo test lint bench build clean

demo: $(VENV)/.installed
	$(BIN)/dredcall demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/dredcall bench

build: $(VENV)/.installed

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(VENV)/.installed $@

clean:
	rm -rf build $(VENV) demo codec_ext/*.so *.egg-info
