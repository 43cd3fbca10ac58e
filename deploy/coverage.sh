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
# a line counts when any program reached it: one source is in several, and kernels.c is compiled
# once for each instruction set
find "$cov" -name '*.gcda' \( -path '*/core/*' -o -path '*/fcgi/*' \) -print0 |
    xargs -0 -r gcov -t 2>/dev/null | awk -F: '
    $2 + 0 == 0 && $3 == "Source" { file = $4; next }
    file !~ /^(core|fcgi)\// || $1 ~ /-/ { next }
    { key = file ":" $2 + 0; lines[key] = file
      if ($1 !~ /[#=]/) hit[key] = 1 }
    END {
        for (k in lines) { n[lines[k]]++; h[lines[k]] += k in hit }
        for (f in n) {
            printf "%6.1f %%  %5d lines  %s\n", 100 * h[f] / n[f], n[f], f | "sort -k5"
            split(f, p, "/"); sum[p[1]] += h[f]; all[p[1]] += n[f] }
        close("sort -k5")
        for (d in all) printf "%s: %.1f %% of %d lines\n", d, 100 * sum[d] / all[d], all[d] }'
exit $result
