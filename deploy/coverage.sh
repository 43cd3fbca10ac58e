#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make coverage: build with gcov in $B/cov, run the tests there, print the lines of core/ and fcgi/
# that were reached. Workers write their counts when they exit, those that are killed do not.
set -uo pipefail
: "${B:=build}"
cd "$(dirname "$0")/.." || exit 1
cov=$B/cov
find "$cov" -name '*.gcda' -delete 2>/dev/null
${MAKE:-make} --no-print-directory test B="$cov" SAN= \
    CFLAGS='-O1 -g --coverage -fprofile-update=atomic' LDFLAGS=--coverage
result=$?
echo
find "$cov/core" "$cov/fcgi" -name '*.gcda' -print0 | xargs -0 -r gcov -n 2>/dev/null | awk '
    /^File / { file = $2; gsub(/\x27/, "", file) }
    /^Lines executed:/ && file ~ /^(core|fcgi)\/.*\.c$/ {
        split($0, a, /[:% ]+/); percent = a[3]; lines = $NF
        # one source compiled for several instruction sets: the best of them counts
        if (!(file in n) || percent * lines / 100 > hit[file]) hit[file] = percent * lines / 100
        n[file] = lines; file = "" }
    END {
        for (f in n) {
            printf "%6.1f %%  %5d lines  %s\n", 100 * hit[f] / n[f], n[f], f | "sort -k5"
            split(f, p, "/"); sum[p[1]] += hit[f]; all[p[1]] += n[f] }
        close("sort -k5")
        for (d in all) printf "%s: %.1f %% of %d lines\n", d, 100 * sum[d] / all[d], all[d] }'
exit $result
