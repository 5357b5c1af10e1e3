#!/bin/sh
# What a GPU alone can show: `make gpu-suite`, or, on a machine with nothing of this project
# installed, `sh scripts/gpu_suite.sh [FOLDER [PART...]]`. Parts: tests, bench, int8, fp8 (the
# benchmark, shorter, with 8-bit weights). Without any: tests and bench, about nine minutes; int8
# and fp8 take about two each. Nothing is downloaded: what this machine's Python lacks is installed
# from wheels/ (`make gpu-wheels`), and named where it is not there. PYTHON names the interpreter.
set -u
cd "$(dirname "$0")/.." || exit 2
out=${1:-runs/gpu}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- tests bench
python=${PYTHON:-python3}
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$out" "$work/site"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
unset TRITON_INTERPRET

"$python" -m scripts.gpu_wheels install "$work/site" || exit 2
export PYTHONPATH="$work/site:$PYTHONPATH"
"$python" -c 'import torch, sys; print(torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name()); sys.exit(not torch.cuda.is_available())' || {
    echo "no CUDA device that torch can use: nothing was run" >&2
    exit 2
}

# The project's own pytest settings ask for plugins that such a machine may lack.
tests() {
    { timeout 240 "$python" -m pytest -c /dev/null --rootdir . --import-mode=importlib -q -ra \
        --maxfail=8 --durations=8 -p no:cacheprovider -W ignore::pytest.PytestUnknownMarkWarning \
        tests/engine/test_gpu_ops.py tests/engine/test_gpu.py \
        tests/engine/test_gpu_quantized.py tests/engine/test_gpu_execution.py 2>&1
      echo $? >"$work/status"
    } | tee "$out/tests.log"
    return "$(cat "$work/status")"
}

# bench NAME SECONDS ARGUMENT...: whole once the last figure is there
bench() {
    name=$1
    limit=$2
    shift 2
    rm -f "$out/$name.json"
    timeout "$limit" "$python" -m bench.gpu --json "$out/$name.json" "$@" 2>&1 | tee "$out/$name.log"
    grep -q memory_at_the_end "$out/$name.json"
}

failed=
for part; do
    echo "== $part"
    case $part in
        tests) tests ;;
        bench) bench gpu 330 --seconds 16 ;;
        int8 | fp8) bench "gpu-$part" 170 --quantization "$part" --seconds 6 --runs 2 ;;
        *) echo "no such part: $part (tests, bench, int8, fp8)" >&2; false ;;
    esac || failed="$failed $part"
done
echo "${failed:+FAILED or incomplete:$failed; }parts: $*; see $out"
[ -z "$failed" ]
