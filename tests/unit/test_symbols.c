/* SPDX-License-Identifier: Apache-2.0
 *
 * test_symbols.c - every name that libmicrogpt.a gives to a linker begins with mg_, as
 * `nm` lists them, and nothing in it prints or exits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The library lies two folders above this program. */
static FILE *open_nm(const char *flags) {
    char path[4000], command[4200];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    assert_true(n > 0);
    path[n] = 0;
    for (int i = 0; i < 3; i++) *strrchr(path, '/') = 0;
    snprintf(command, sizeof command, "nm %s '%s/libmicrogpt.a'", flags, path);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    return f;
}

static int starts_with(const char *s, const char *prefix) {
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static void test_defined_names_begin_with_mg(void **state) {
    (void)state;
    FILE *f = open_nm("-g --defined-only --format=posix");
    char line[512];
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        char name[256], type;
        if (sscanf(line, "%255s %c", name, &type) != 2 || strchr(line, '['))
            continue;                        /* the name of a member */
        if (starts_with(name, "__odr_asan")) /* the sanitizer's own */
            continue;
        n++;
        if (!starts_with(name, "mg_"))
            fail_msg("%s is visible to programs and does not begin with mg_", name);
    }
    assert_int_equal(pclose(f), 0);
    print_message("%d names\n", n);
    assert_true(n > 30);
}

static void test_nothing_prints_or_exits(void **state) {
    (void)state;
    static const char *const banned[] = {
        "printf", "fprintf", "vfprintf",  "puts",         "fputs",        "putchar",
        "perror", "exit",    "_exit",     "quick_exit",   "abort",        "stdout",
        "stderr", "signal",  "sigaction", "__printf_chk", "__fprintf_chk"};
    FILE *f = open_nm("-u --format=posix");
    char line[512];
    while (fgets(line, sizeof line, f)) {
        char name[256];
        if (sscanf(line, "%255s", name) != 1) continue;
        for (size_t i = 0; i < sizeof banned / sizeof *banned; i++)
            if (strcmp(name, banned[i]) == 0) fail_msg("the library uses %s", name);
    }
    assert_int_equal(pclose(f), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defined_names_begin_with_mg),
        cmocka_unit_test(test_nothing_prints_or_exits),
    };
    return cmocka_run_group_tests_name("symbols", tests, NULL, NULL);
}
