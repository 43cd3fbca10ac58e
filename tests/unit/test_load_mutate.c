/* SPDX-License-Identifier: Apache-2.0
 *
 * test_load_mutate.c - damage by the thousand: every byte of a small checkpoint changed
 * in many ways, both files cut at every length. Each is refused with a line or loads as a
 * model whose every tensor lies in the mapping; nothing crashes (sanitizers), nothing is
 * left behind. With an argument it goes on with random damage for so many seconds (make
 * soak). */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../../core/model.h"
#include "folder.h"
#include "make_model.h"

static const char *const names[] = {"weights.safetensors", "meta.json"};
static char *dir;                   /* a copy of tiny, to be damaged */
static char *whole[2];              /* the undamaged files */
static size_t size[2], header_size; /* header_size: length and JSON of the weights */

struct tally {
    long loaded, refused;
};

static void assert_inside(const struct mg_model *m, const struct mg_matrix *w) {
    size_t bytes;
    const char *map = mg_weights_map(m->weights, &bytes);
    const char *data = w->data;
    size_t need = (size_t)w->rows * (size_t)w->cols * mg_dtype_size(w->dtype);
    assert_true(w->rows > 0 && w->cols > 0);
    assert_true(data >= map + 8 && need <= bytes && data <= map + bytes - need);
    assert_true(mg_model_maps(m, data) && mg_model_maps(m, data + need - 1));
}

static void assert_sound(struct mg_model *m) {
    const struct mg_model_info *info = mg_model_info(m);
    const struct mg_sizes sizes = mg_model_sizes(m);
    char hex[17];
    assert_int_equal(info->n_embd, m->head_dim * info->n_head);
    assert_int_equal(info->vocab_size, m->tokenizer->vocab_size);
    for (int i = 0; i < mg_tensor_count(&sizes); i++)
        assert_inside(m, mg_tensor_place(&m->tensors, i));
    mg_model_digest(m, hex);
    assert_int_equal(strlen(hex), 16);
}

static void try_open(struct tally *t) {
    struct mg_error err = {0};
    struct mg_model *m = mg_model_open(dir, NULL, &err);
    if (m) {
        assert_int_equal(err.code, MG_OK);
        assert_sound(m);
        mg_model_close(m);
        t->loaded++;
        return;
    }
    assert_int_equal(err.code, MG_EFILE);
    assert_int_equal(strncmp(err.text, dir, strlen(dir)), 0);
    for (const char *p = err.text; *p; p++) assert_true((unsigned char)*p >= 0x20);
    t->refused++;
}

static int count_descriptors(void) {
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static int copy_tiny(void **state) {
    (void)state;
    uint64_t len;
    dir = folder_new();
    for (int i = 0; i < 2; i++) {
        whole[i] = folder_read("tests/data/tiny", names[i], &size[i]);
        folder_write(dir, names[i], whole[i], size[i]);
    }
    memcpy(&len, whole[0], 8);
    header_size = 8 + (size_t)len;
    return 0;
}

static int remove_copy(void **state) {
    (void)state;
    remove_model(dir);
    free(whole[0]);
    free(whole[1]);
    return 0;
}

/* Bytes that mean something to a reader of JSON. */
static const char telling[] = "\xff\x7f\0 \t\n\"\\{}[],:.-+059azEeu\x7f\x80\xc2\xe2\xf0";

/* Every byte of file i in [from, to): each bit turned, then the first n_telling of these.
 */
static struct tally change_bytes(int i, size_t from, size_t to, size_t n_telling) {
    struct tally t = {0};
    int before = count_descriptors();
    FILE *f;
    char *path = folder_path(dir, names[i]);
    assert_non_null(f = fopen(path, "r+b"));
    for (size_t at = from; at < to; at++) {
        for (size_t k = 0; k < 8 + n_telling; k++) {
            int c = k < 8 ? whole[i][at] ^ 1 << k : telling[k - 8];
            if ((char)c == whole[i][at]) continue;
            fseek(f, (long)at, SEEK_SET);
            putc(c, f);
            fflush(f);
            try_open(&t);
        }
        fseek(f, (long)at, SEEK_SET);
        putc(whole[i][at], f);
    }
    fclose(f);
    free(path);
    assert_int_equal(count_descriptors(), before);
    return t;
}

static void report(const char *what, struct tally t) {
    printf("           %s: %ld refused, %ld loaded\n", what, t.refused, t.loaded);
}

static void test_header_bytes(void **state) {
    (void)state;
    struct tally t = change_bytes(0, 0, header_size, sizeof telling - 1);
    report("header bytes changed", t);
    assert_true(t.refused > 10000 && t.loaded == 0); /* none of its bytes is free */
}

static void test_data_bytes(void **state) {
    (void)state;
    struct tally t = change_bytes(0, header_size, size[0], 2);
    report("data bytes changed", t);
    assert_true(t.loaded > 5000 && t.refused > 0); /* NaN and Inf are refused */
}

static void test_meta_bytes(void **state) {
    (void)state;
    struct tally t = change_bytes(1, 0, size[1], sizeof telling - 1);
    report("meta.json bytes changed", t);
    assert_true(t.refused > 1000 && t.loaded > 0);
}

/* File i cut at every length; complete is the shortest length that still holds
 * everything. */
static void cut_everywhere(int i, size_t complete) {
    struct tally t = {0};
    for (size_t len = 0; len < complete; len++) {
        folder_write(dir, names[i], whole[i], len);
        try_open(&t);
        assert_int_equal(t.loaded, 0);
    }
    folder_write(dir, names[i], whole[i], size[i]);
    try_open(&t);
    assert_int_equal(t.loaded, 1);
}

static void test_weights_cut(void **state) {
    (void)state;
    cut_everywhere(0, size[0]);
}

static void test_meta_cut(void **state) {
    (void)state;
    cut_everywhere(1, size[1] - 1); /* without its newline it is whole */
}

/* ---- random damage
 * ------------------------------------------------------------------------ */

enum { ROOM = 64 };

static size_t insert_text(char *data, size_t len, size_t at, const char *text, size_t n) {
    memmove(data + at + n, data + at, len - at);
    memcpy(data + at, text, n);
    return len + n;
}

/* One random change of data[len], which has ROOM bytes more; returns its new length. */
static size_t damage(uint64_t *rng, char *data, size_t len) {
    static const char *const words[] = {"null",         "true",
                                        "-1",           "0",
                                        "1e9",          "9223372036854775807",
                                        "[]",           "{}",
                                        "[4,",          "\"F16\"",
                                        "\"BF16\"",     "1.5",
                                        "\"wte\":",     "}",
                                        "{\"a\":",      ",",
                                        "\xef\xbf\xbf", "\\u0000",
                                        "\\ud800",      "18446744073709551616"};
    size_t at = (size_t)random_int(rng, 0, (int)len - 1);
    size_t n = (size_t)random_int(rng, 1, 8),
           from = (size_t)random_int(rng, 0, (int)len - 1);
    const char *word = words[random_int(rng, 0, (int)(sizeof words / sizeof *words) - 1)];
    if (n > len - at) n = len - at;
    if (n > len - from) n = len - from;
    switch (random_int(rng, 0, 5)) {
    case 0: data[at] = (char)random_int(rng, 0, 255); return len;
    case 1: data[at] ^= (char)(1 << random_int(rng, 0, 7)); return len;
    case 2: memmove(data + at, data + from, n); return len;
    case 3:
        if (len < 16) return len;
        memmove(data + at, data + at + n, len - at - n);
        return len - n;
    case 4: return insert_text(data, len, at, word, strlen(word));
    default: return insert_text(data, len, at, memcpy((char[8]){0}, data + from, n), n);
    }
}

/* Write file i with one to five random changes, in the weights mostly of their header. */
static void damage_file(uint64_t *rng, int i) {
    size_t len = i || random_int(rng, 0, 7) == 0 ? size[i] : header_size;
    size_t tail = size[i] - len;
    char *data = calloc(1, size[i] + 8 * ROOM);
    assert_non_null(data);
    memcpy(data, whole[i], len);
    for (int k = random_int(rng, 1, 5); k > 0; k--) len = damage(rng, data, len);
    memcpy(data + len, whole[i] + size[i] - tail, tail);
    uint64_t header = len - 8; /* right again, so that what follows is reached */
    if (tail && random_int(rng, 0, 3)) memcpy(data, &header, 8);
    folder_write(dir, names[i], data, len + tail);
    free(data);
}

static void test_random_damage(void **state) {
    long seconds = *(long *)*state;
    struct tally t = {0};
    uint64_t rng = seconds ? (uint64_t)time(NULL) : 1;
    time_t end = time(NULL) + seconds;
    printf("           seed %ju\n", (uintmax_t)rng);
    for (long n = 0; seconds ? time(NULL) < end : n < 5000; n++) {
        int i = random_int(&rng, 0, 3) == 0;
        damage_file(&rng, i);
        try_open(&t);
        folder_write(dir, names[i], whole[i], size[i]);
    }
    report("random damage", t);
    assert_true(t.refused > 100 && t.loaded > 0);
}

int main(int argc, char **argv) {
    static long seconds;
    seconds = argc > 1 ? atol(argv[1]) : 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_bytes),
        cmocka_unit_test(test_data_bytes),
        cmocka_unit_test(test_meta_bytes),
        cmocka_unit_test(test_weights_cut),
        cmocka_unit_test(test_meta_cut),
        cmocka_unit_test_prestate(test_random_damage, &seconds),
    };
    return cmocka_run_group_tests_name("load_mutate", tests, copy_tiny, remove_copy);
}
