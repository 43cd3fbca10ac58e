/* SPDX-License-Identifier: Apache-2.0
 * driver.c - a short run of one target without clang: every file of its corpus, then a
 * fixed number of changed ones, the same each time. Speaks TAP, as tests/run reads it.
 *
 *     fuzz_NAME CORPUS [RUNS [SEED]] */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 512, INPUT_SIZE = 1 << 16 };

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    return 0;
}

struct input {
    uint8_t *data;
    size_t size;
};
static struct input corpus[MAX_FILES];
static int n_corpus;
static uint64_t state = 1;

static size_t below(size_t n) { /* xorshift64*, Vigna 2014 */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return n ? (size_t)((state * 2685821657736338717u) >> 33) % n : 0;
}

static void read_input(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f || n_corpus == MAX_FILES) exit(1);
    struct input *in = &corpus[n_corpus++];
    in->data = malloc(INPUT_SIZE);
    in->size = fread(in->data, 1, INPUT_SIZE, f);
    fclose(f);
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void read_corpus(const char *dir) {
    struct dirent **names;
    int n = scandir(dir, &names, NULL, by_name);
    for (int i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
        if (names[i]->d_name[0] != '.') read_input(path);
        free(names[i]);
    }
    if (n >= 0) free(names);
}

/* Bytes that readers of JSON, of records and of configuration take for something. */
static const char telling[] =
    "\"\\{}[],:-+.eE0159 \t\r\n#=&%;/*\0\1\2\4\5\7\x7f\x80\xc2\xed"
    "\xf0\xff";

static void change(struct input *in) {
    size_t at = below(in->size + 1), n = 1 + below(8);
    const struct input *other = &corpus[below((size_t)n_corpus)];
    size_t from = below(other->size + 1);
    switch (below(6)) {
    case 0: /* one bit */
        if (at < in->size) in->data[at] ^= (uint8_t)(1 << below(8));
        break;
    case 1: /* a byte that means something */
        if (at < in->size) in->data[at] = (uint8_t)telling[below(sizeof telling)];
        break;
    case 2: /* cut out */
        if (at + n > in->size) break;
        memmove(in->data + at, in->data + at + n, in->size - at - n);
        in->size -= n;
        break;
    case 3: /* put in */
        if (in->size + n > INPUT_SIZE) break;
        memmove(in->data + at + n, in->data + at, in->size - at);
        for (size_t i = 0; i < n; i++)
            in->data[at + i] = (uint8_t)telling[below(sizeof telling)];
        in->size += n;
        break;
    case 4: /* end as another one ends */
        if (at + other->size - from > INPUT_SIZE) break;
        memcpy(in->data + at, other->data + from, other->size - from);
        in->size = at + other->size - from;
        break;
    default: in->size = at; /* cut off */
    }
}

/* The input lies at the end of its memory, so that a sanitizer sees a byte too many. */
static void run(const struct input *in) {
    uint8_t *exact = malloc(in->size ? in->size : 1);
    memcpy(exact, in->data, in->size);
    LLVMFuzzerTestOneInput(exact, in->size);
    free(exact);
}

static void run_changed(long runs) {
    struct input in = {.data = malloc(INPUT_SIZE)};
    for (long i = 0; i < runs && n_corpus; i++) {
        const struct input *from = &corpus[below((size_t)n_corpus)];
        memcpy(in.data, from->data, in.size = from->size);
        for (size_t k = 1 + below(4); k > 0; k--) change(&in);
        run(&in);
    }
    free(in.data);
}

int main(int argc, char **argv) {
    long runs = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    if (argc > 3) state = strtoull(argv[3], NULL, 10) * 2 + 1;
    if (argc < 2 || LLVMFuzzerInitialize(&argc, &argv)) return 1;
    puts("1..2");
    read_corpus(argv[1]);
    for (int i = 0; i < n_corpus; i++) run(&corpus[i]);
    printf("%s 1 - the corpus of %d\n", n_corpus ? "ok" : "not ok", n_corpus);
    fflush(stdout);
    run_changed(runs);
    printf("ok 2 - %ld changed\n", runs);
    for (int i = 0; i < n_corpus; i++) free(corpus[i].data);
    return !n_corpus;
}
