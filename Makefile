# Everything sets itself up: `make demo` and `make test` on a fresh machine need only Python 3.11+, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STORE ?= build/store
STAMP := $(VENV)/.installed
# Processes that run tests; each uses one thread.
TESTERS ?= 2

.PHONY: help demo test lint bench bench-speed bench-quality bench-embed bench-kill bench-merge bench-reviews bench-steps bench-shifts bench-adversarial bench-estimators bench-echo bench-tuned-embedding bench-sentences bench-matryoshka study readme docs docs-serve docs-outputs clean

help:            ## what there is
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)   ## four ways to fine-tune MiniLM and the search, tested on four domains
	$(BIN)/surefoot demo

test: $(STAMP)   ## the tests; set SUREFOOT_DATA to the folder of data sets to run those that need it
	$(BIN)/python -m pytest -rs -n $(TESTERS) --dist loadfile

lint: $(STAMP)   ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## evidence of every method, then the speed cases (BASELINE=path adds those over the plain loop; resumes)
	$(BIN)/surefoot bench
	$(BIN)/surefoot bench --speed $(if $(BASELINE),--baseline $(BASELINE))

bench-speed: $(STAMP)   ## speed beside the plain loop, in one run (BASELINE=path to reviews_plain_loop.py)
	$(BIN)/python benchmarks/speed.py --baseline $(BASELINE)

bench-quality: $(STAMP)   ## accuracy on the plain loop's own splits, three seeds (BASELINE=...)
	$(BIN)/python benchmarks/speed.py --baseline $(BASELINE) --quality 0 1 2

bench-embed: $(STAMP)   ## texts a second beside sentence-transformers, what quick modes cost on STS, peak memory (SUREFOOT_DATA=folder)
	$(BIN)/python benchmarks/embedding.py --sts --memory 200000

readme: $(STAMP)   ## write the README's picture and tables, and the tables of docs/merge.md and docs/embed.md, from what the benchmarks wrote
	$(BIN)/python benchmarks/readme.py
	$(BIN)/python benchmarks/merging_page.py
	$(BIN)/python benchmarks/embedding_page.py

docs: $(STAMP)   ## build the documentation into site/; a warning is an error
	$(BIN)/python docs/generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

docs-serve: $(STAMP) ## show the documentation at http://127.0.0.1:8000
	$(BIN)/python docs/generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

docs-outputs: $(STAMP) ## run the pages of the documentation and write what their blocks print into them
	$(BIN)/python docs/generate/outputs.py

bench-echo: $(STAMP)   ## echo embeddings: worth, cost, and beside the authors' code (STORE=folder, PEER=their checkout)
	$(BIN)/python benchmarks/echo.py --store $(STORE) --parts quality cost tuned $(if $(PEER),peer --peer $(PEER))

bench-tuned-embedding: $(STAMP)   ## an embedding tuned on one domain: gain at home and loss elsewhere, plainly and by the search (STORE=folder; resumes)
	$(BIN)/python benchmarks/embedding_tuning.py --store $(STORE)/embedding

bench-sentences: $(STAMP)   ## SimCSE against DiffCSE from a MiniLM whose sentence training is undone, by length of training (STORE=folder; resumes)
	$(BIN)/python benchmarks/sentence_training.py --store $(STORE)

bench-matryoshka: $(STAMP)   ## one encoder of many sizes: quality against speed (STORE=folder; resumes)
	$(BIN)/python benchmarks/matryoshka.py --store $(STORE)

bench-reviews: $(STAMP)   ## the search against fine-tuning, LP-FT and WiSE-FT: three turns, ten seeds (STORE=folder; resumes)
	$(BIN)/python benchmarks/reviews.py --store $(STORE)
	$(BIN)/python benchmarks/reviews.py --store $(STORE) --bank wide --seeds 4
	$(BIN)/python benchmarks/reviews.py --store $(STORE) --bank wide --deep --seeds 4

study: $(STAMP)   ## train and compare what the search's defaults rest on (STORE=folder; hours; resumes)
	$(BIN)/python benchmarks/study/train.py --store $(STORE)
	$(BIN)/python benchmarks/study/compare.py --store $(STORE)
	$(BIN)/python benchmarks/study/lines.py --store $(STORE)
	$(BIN)/python benchmarks/study/page.py

bench-steps: $(STAMP)   ## what a step of each method costs beside cross-entropy, in time, memory and passes (resumes)
	$(BIN)/python benchmarks/objectives.py

bench-shifts: $(STAMP)   ## sentences a second of shifts of texts, the corruption bank beside imagecorruptions, what evaluate --shifts costs
	$(BIN)/python benchmarks/shifts.py --evaluate 1000

bench-adversarial: $(STAMP)   ## clean, corrupted and robust accuracy of plain and adversarial training and RiFT, three seeds (STORE=folder; resumes)
	$(BIN)/python benchmarks/adversarial.py --store $(STORE)/adversarial

bench-estimators: $(STAMP)   ## how far estimates without labels are off over 33 shifted sets; what conformal sets hold (STORE=folder; resumes)
	$(BIN)/python benchmarks/estimators.py --store $(STORE)/estimators

bench-merge: $(STAMP)   ## merging beside mergekit and beside copying the bytes, and peak memory on eight 2 GB checkpoints (STORE=folder, 9 GB)
	$(BIN)/python benchmarks/merging.py --store $(STORE)/merging

bench-kill: $(STAMP)   ## twenty kills of a MiniLM training, the same weights in the end
	$(BIN)/python benchmarks/kill.py

clean:           ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache site
