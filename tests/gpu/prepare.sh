#!/usr/bin/env bash
# Prepare .gpu/ in this checkout, for tests/gpu/verify.sh on a machine with a GPU and without network: wheels for its
# Python, photos, and the name of this commit.
#
#   tests/gpu/prepare.sh PHOTOS [COUNT]        # PHOTOS: a folder of photos in Oxford Pets' names; 120 of them unless told
#
# PYTHON=3.12 is the version of Python there. Then copy the checkout with .gpu/ to that machine (.gpu/ is in .gitignore).
set -euo pipefail
cd "$(dirname "$0")/../.."
photos=${1:?the folder of photos in Oxford Pets names} count=${2:-120}
mkdir -p .gpu/wheels .gpu/pets
rm -f .gpu/wheels/*.whl
platforms=()
for number in 28 27 24 17; do platforms+=(--platform "manylinux_2_${number}_x86_64"); done
python3 -m pip download -q --no-deps --only-binary=:all: -d .gpu/wheels -r tests/gpu/wheels.txt -c constraints.txt \
    --python-version "${PYTHON:-3.12}" --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 \
    --platform manylinux1_x86_64 --platform any
# Evenly by name, so that all breeds are there.
find "$photos" -maxdepth 1 -name '*.jpg' | sort | awk -v n="$count" '{ all[NR] = $0 }
    END { for (i = 0; i < n && i < NR; i++) print all[int(i * NR / (n < NR ? n : NR)) + 1] }' |
    while read -r file; do cp "$file" .gpu/pets/; done
git rev-parse HEAD > .gpu/commit
git diff --quiet HEAD || echo "with changes that are not committed" >> .gpu/commit
echo "$(find .gpu/wheels -name '*.whl' | wc -l) wheels, $(find .gpu/pets -name '*.jpg' | wc -l) photos, $(du -sh .gpu | cut -f1) in .gpu"
