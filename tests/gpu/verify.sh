#!/usr/bin/env bash
# Everything that is tested and measured on a GPU, in one command of at most eight minutes:
#
#   tests/gpu/verify.sh                             # on a machine with an NVIDIA GPU, after tests/gpu/prepare.sh
#   tests/gpu/verify.sh --device cpu --seconds 900  # to try the command itself on any machine: small, most is skipped
#
# --out FOLDER (default: $OUT, else gpu-results) gets verify.json with all figures and verify.log with all output.
# --photos FOLDER: photos in Oxford Pets' names (default: .gpu/pets, else those of KIT_SHARED, else the drawn sample).
# It needs no network. Where fastai cannot be imported, the wheels in .gpu/wheels are installed to a temporary folder.
# A stage that fails or takes too long does not end it; the summary names it, and the exit code is then 1.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
device=cuda seconds=480 out=${OUT:-gpu-results} photos=.gpu/pets
while [ $# -gt 0 ]; do
    case $1 in
    --device) device=$2 ;; --seconds) seconds=$2 ;; --out) out=$2 ;; --photos) photos=$2 ;;
    *) sed -n '2,/^set/ s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
mkdir -p "$out"
out=$(cd "$out" && pwd) parts=$(mktemp -d) end=$((SECONDS + seconds))
trap 'rm -rf "$parts"' EXIT
[ -d "$photos" ] || photos=${KIT_SHARED:-}/images/pets
[ -d "$photos" ] || photos=data/sample
export KIT_GPU_DEVICE=$device KIT_OFFLINE=1 PYTHONUNBUFFERED=1 MPLBACKEND=Agg KIT_CACHE=$parts/cache
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-python3} log=$out/verify.log
: > "$log"
say() { echo "$@" | tee -a "$log"; }

stage() { # stage NAME SECONDS COMMAND...: run it for at most so long, and note how it ended
    local name=$1 limit=$2 left=$((end - SECONDS - 5)) started=$SECONDS code
    shift 2
    [ "$limit" -lt "$left" ] || limit=$left
    if [ "$limit" -lt 5 ]; then
        code=none
    else
        echo "===== $name: $*" >> "$log"
        # SIGINT first: pytest then still writes its report.
        timeout --signal INT --kill-after 10 "$limit" "$@" >> "$log" 2>&1 < /dev/null
        code=$?
    fi
    case $code in
    0) ended=finished ;; none) ended="not begun: no time was left" ;;
    124 | 137) ended="stopped after its limit of $limit s" ;; *) ended="ended with exit code $code" ;;
    esac
    say "$name: $ended, $((SECONDS - started)) s"
    printf '{"name": "%s", "ended": "%s", "seconds": %d}\n' "$name" "$ended" $((SECONDS - started)) >> "$parts/stages"
}

if ! $python -c 'import fastai' 2> /dev/null; then
    stage packages 90 $python -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$parts/site" .gpu/wheels/*.whl
    export PYTHONPATH=$parts/site:$PYTHONPATH
fi
stage facts 40 $python tests/gpu/summary.py facts "$parts/facts.json"
# Exit code 1 is for packages that only kit serve needs.
stage doctor 60 bash -c '"$0" -m kit.cli.main doctor || [ $? = 1 ]' $python
pytest=(-v -rs -m gpu tests/gpu -p no:cacheprovider "--junitxml=$parts/tests.xml")
[ "$(getconf _NPROCESSORS_ONLN)" -ge 8 ] && $python -c 'import xdist' 2> /dev/null && pytest+=(-n 4)
$python -c 'import pytest_timeout' 2> /dev/null && pytest+=(--timeout "$([ "$device" = cpu ] && echo 400 || echo 150)")
stage tests $((seconds * 2 / 5)) $python -m pytest "${pytest[@]}"
bench=(--images "$photos" --device "$device" --json "$parts/bench.json" --seconds $((end - SECONDS - 12)))
[ "$device" != cpu ] || bench+=(--count 100 --size 64 --arch resnet18)
stage benchmark "$seconds" $python tests/bench/gpu.py "${bench[@]}"
$python tests/gpu/summary.py merge "$parts" "$photos" "$out/verify.json" 2>&1 | tee -a "$log"
exit "${PIPESTATUS[0]}"
