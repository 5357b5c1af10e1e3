#!/bin/sh
# Everything that a GPU alone can show, in about nine minutes: `make gpu-suite`, or, on a machine
# with nothing of this project installed, `sh scripts/gpu_suite.sh FOLDER`. It needs a CUDA build
# of torch with Triton, safetensors, tokenizers, jinja2, pillow, and for the tests pytest,
# hypothesis and transformers; nothing is downloaded. PYTHON names the interpreter.
set -u
cd "$(dirname "$0")/.." || exit 2
out=${1:-runs/gpu}
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
unset TRITON_INTERPRET

"$python" -c 'import torch, sys; print(torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name()); sys.exit(not torch.cuda.is_available())' || {
    echo "no CUDA device that torch can use: nothing was run" >&2
    exit 2
}

# The project's own pytest settings ask for plugins that such a machine may lack.
timeout 210 "$python" -m pytest -c /dev/null --rootdir . --import-mode=importlib -q -ra --maxfail=8 \
    -p no:cacheprovider -W ignore::pytest.PytestUnknownMarkWarning \
    tests/engine/test_gpu_ops.py tests/engine/test_gpu.py tests/engine/test_gpu_execution.py \
    2>&1 | tee "$out/tests.log"
grep -q ' passed' "$out/tests.log" && ! grep -q ' failed\| error' "$out/tests.log"
tests=$?

timeout 350 "$python" -m bench.gpu --json "$out/gpu.json" --seconds 16 2>&1 | tee "$out/bench.log"
grep -q memory_at_the_end "$out/gpu.json"
bench=$?

echo "tests: $([ $tests = 0 ] && echo passed || echo FAILED), bench: $([ $bench = 0 ] && echo complete || echo INCOMPLETE); see $out"
[ $tests = 0 ] && [ $bench = 0 ]
