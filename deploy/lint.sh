#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make lint: layers, sizes and banned calls by grep; cppcheck, clang-tidy, shellcheck, mandoc and
# nginx -t where they are installed. Says everything it finds, then fails.
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
report() { bad=1; echo "lint: $1"; [ $# -lt 2 ] || printf '    %s\n' "${2//$'\n'/$'\n    '}"; }
none() { [ -z "$2" ] || report "$1" "$2"; }                  # text, findings
only() {                                                     # text, most, files
    [ "$(echo "$3" | grep -c .)" -le "$2" ] || report "$1" "$3"
}
has() {
    command -v "$1" >/dev/null && return
    echo "lint: $1 not possible here: not installed"
    return 1
}

shopt -s nullglob globstar
c=(core/**/*.[ch] fcgi/**/*.[ch])
tests=(tests/**/*.[ch])
scripts=(conf/*.sh deploy/**/*.sh deploy/examples/spawn-fcgi/microgpt-spawn)
for f in tests/run .ci/run; do
    head -n 1 "$f" 2>/dev/null | grep -q "sh$" && scripts+=("$f")
done

# ---- layers: arrows point down ----
none "fcgi/ may include ../core/microgpt.h and no other header of core/" \
    "$(grep -nE '#include ".*core/' fcgi/**/*.[ch] | grep -v '"../core/microgpt.h"')"
none "core/ includes nothing of fcgi/, but verify what computes replies again" \
    "$(grep -nE '#include .*fcgi' core/**/*.[ch] | grep -vE '^core/cli/verify.c:.*/replay.h"$')"
none "core/cli and core/train are not for the library" \
    "$(grep -nE '#include "(cli|train)/' core/*.[ch])"
none "core/train knows no command line" "$(grep -nE '#include "(\.\./)?cli' core/train/*.[ch])"
# an arrow from each unit (.c and .h of one name) to what it includes; three headers are the inner
# half of the unit they include, and stand as they are
arrows() {
    local f to
    for f in "${c[@]}"; do
        sed -nE 's/^#include "([^"]+)".*/\1/p' "$f" | while read -r to; do
            echo "$f $(realpath -m --relative-to=. "${f%/*}/$to")"
        done
    done | sed -E 's/\.[ch]( |$)/\1/g' | awk '$1 != $2' |
        grep -vxE 'core/gemm core/ops|fcgi/config_keys fcgi/config|fcgi/conn_peer fcgi/conn|fcgi/metrics_table fcgi/metrics'
}
none "a circle of includes" "$(arrows | timeout 20 tsort 2>&1 >/dev/null | sed 's/^tsort: //')"
only "one file of core/ includes BLIS, one of core/train may" 2 \
    "$(grep -lE '#include [<"].*(cblas|blis)\.h' core/**/*.[ch])"
only "one file of the library includes BLIS" 1 "$(grep -lE '#include [<"].*(cblas|blis)\.h' core/*.[ch])"
only "at most two files of the library include Jansson" 2 "$(grep -l '<jansson.h>' core/*.[ch])"
only "one file includes fcgiapp.h" 1 "$(grep -lE '#include [<"].*fcgiapp.h' fcgi/**/*.[ch])"
none "the library does not print or exit" \
    "$(grep -nE '(^|[^a-z_"])(printf|puts|perror|exit|_exit|abort|fprintf\(std)\(' core/*.[ch])"
none "top level holds nothing else" "$(git ls-files 2>/dev/null | cut -d/ -f1 | sort -u |
    grep -vxE 'Makefile|fcgi|core|conf|tests|deploy|README.md|LICENSE|NOTICE|\..*')"

# ---- banned, and things that should not be committed ----
none "banned calls" \
    "$(grep -nE '(^|[^a-z_])(strcpy|strcat|sprintf|vsprintf|atoi|atol|alloca|gets)\(' "${c[@]}")"
none "documents that are not here (say the rule, or name a manual)" \
    "$(grep -nE '\b[a-z-]+\.md\b' "${c[@]}" "${tests[@]}" | grep -v README.md)"
none "unfinished" "$(grep -nE '\b(TODO|FIXME|XXX)\b' "${c[@]}" "${tests[@]}")"

# ---- sizes ----
none "lines over 90 columns, tabs, trailing blanks" "$(awk '
    length > 90 { print FILENAME ":" FNR ": " length " columns" }
    /\t/        { print FILENAME ":" FNR ": tab" }
    /[ \t]$/    { print FILENAME ":" FNR ": trailing blank" }' "${c[@]}" "${tests[@]}")"
none "no SPDX line at the top" \
    "$(for f in "${c[@]}" "${tests[@]}"; do head -n 3 "$f" | grep -q SPDX || echo "$f"; done)"
none "files over 450 lines" "$(wc -l "${c[@]}" | awk '$2 != "total" && $1 > 450')"
none "headers over 120 lines (the public one: 250)" "$(wc -l core/*.h core/*/*.h fcgi/*.h |
    awk '$2 !~ /total|\.inc\.h$/ && $1 > ($2 == "core/microgpt.h" ? 250 : 120)')"
none "a Makefile of 200 lines and more, a README.md of 260" \
    "$(wc -l Makefile README.md 2>/dev/null | awk '
        $2 != "total" && $1 >= ($2 == "Makefile" ? 200 : 260)')"
none "functions over 60 lines (a switch may)" "$(awk '
    FNR == 1    { start = 0 }
    /^[a-zA-Z].*\{$/ && !/^(struct|enum|union|static const|const|extern)/ {
        start = FNR; name = $0; isswitch = 0 }
    /switch \(/ { isswitch = 1 }
    /^\}/ && start {
        if (FNR - start + 1 > 60 && !isswitch) print FILENAME ":" start ": " FNR - start + 1 ": " name
        start = 0 }' "${c[@]}")"

# the middle function has at most 10 lines, nine of ten at most 25
none "functions grew: median over 10 or p90 over 25" "$(awk '
    FNR == 1   { start = 0 }
    /^[a-zA-Z].*\{$/ && !/^(struct|enum|union|static const|const|extern)/ { start = FNR }
    /^\}/ && start { print FNR - start - 1; start = 0 }' "${c[@]}" | sort -n | awk '
    { n[NR] = $1 }
    END { if (n[int((NR + 1) / 2)] > 10 || n[int(NR * .9)] > 25)
              print "median " n[int((NR + 1) / 2)] ", p90 " n[int(NR * .9)] }')"

# ---- tools ----
if has clang-format; then
    none "format (make fmt)" "$(clang-format --dry-run "${c[@]}" "${tests[@]}" 2>&1 | grep warning)"
fi
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
if has cppcheck && [ ${#c[@]} -gt 0 ]; then
    none cppcheck "$(cppcheck -q -j 2 --std=c11 --enable=warning,performance,portability \
        --inline-suppr --suppress=missingIncludeSystem --suppress=unknownMacro \
        --suppress=nullPointerArithmetic --suppress=invalidPointerCast \
        --suppress=unknownEvaluationOrder --suppress='*:core/kernels*.h' \
        --suppress='*:core/unicode_classes.inc.h' --suppress=memleak:core/cli/chat.c \
        --suppress=memleak:core/bpe_vocab.c --suppress=funcArgOrderDifferent -D__x86_64__ \
        --template='{file}:{line}: {severity}: {message} [{id}]' "${c[@]}" 2>&1)"
fi
if has clang-tidy && [ "${TIDY:-1}" = 1 ]; then
    # not core.* nor valist.*: across inlined calls they report out-parameters that are set
    tidy='-*,clang-analyzer-unix.*,clang-analyzer-security.*,clang-analyzer-deadcode.*'
    tidy+=',-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling'
    tidy+=',bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-narrowing-conversions'
    tidy+=',-bugprone-implicit-widening-of-multiplication-result,-bugprone-branch-clone'
    tidy+=',-bugprone-assignment-in-if-condition,-bugprone-reserved-identifier,-bugprone-signal-handler'
    tidy+=',-bugprone-macro-parentheses,-bugprone-not-null-terminated-result,-bugprone-unused-return-value'
    tidy+=',-bugprone-multi-level-implicit-pointer-conversion,-bugprone-suspicious-include,-bugprone-sizeof-expression'
    tidy+=',-bugprone-misplaced-widening-cast'
    tidy+=',-bugprone-suspicious-string-compare'
    # shellcheck disable=SC2016
    none clang-tidy "$(printf '%s\n' fcgi/*.c core/*.c core/cli/*.c core/train/*.c | xargs -P 2 -n 4 sh -c \
        'clang-tidy --quiet --checks="$0" "$@" -- -std=gnu11 -D_GNU_SOURCE -DMG_ISA=plain \
         $(printf " -isystem %s" /usr/include/*/blis-*) 2>/dev/null' "$tidy" |
        grep -E 'warning:')"
fi
if has shellcheck; then
    none shellcheck "$(shellcheck -f gcc "${scripts[@]}" 2>&1)"
fi
if has mandoc; then
    none "mandoc -Tlint" "$(mandoc -Tlint deploy/man/*.[158] 2>/dev/null |
        grep -v "referenced manual not found")"  # whether ours or others' are installed here
fi
nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || true
if [ "$nginx" ]; then
    conf/prefix.sh "$build/nginx" 8080 /run/microgpt/fcgi.sock
    none "nginx -t" "$("$nginx" -t -p "$build/nginx" -c nginx.conf -e stderr 2>&1 | grep -vE 'is ok|is successful')"
fi

[ $bad = 0 ] && echo "lint: clean"
exit $bad
