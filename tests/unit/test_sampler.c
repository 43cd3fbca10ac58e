/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sampler.c - random state and choice of a token against microgpt-api(7) written out
 * again with long doubles, on every instruction set; and the edges: ties, u near 0 and 1,
 * everything suppressed but one, temperatures that leave no middle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/ops.h"
#include "../../core/sampler.h"
#include "make_model.h"

enum { MAX_N = 300 };

static double scratch[(MAX_N + 15) / 16 * 16] __attribute__((aligned(64)));

/* ---- random state ------------------------------------------------------------------ */

static uint64_t state_of(uint64_t seed, int compat) {
    struct mg_sampler s;
    mg_sampler_init(&s, seed, 1, compat);
    return s.state;
}

static void test_seeds(void **state) {
    (void)state;
    assert_int_equal(state_of(0, 0), 0xE220A8397B1DCDAFu); /* splitmix64's published
                                                              first */
    assert_int_equal(state_of(42, 0), 0xBDD732262FEB6E95u);
    assert_int_equal(state_of(UINT64_MAX, 0), 0xE4D971771B652C20u);
    assert_int_equal(state_of(-0x9E3779B97F4A7C15u, 0), 1); /* the one that mixes to 0 */
    assert_int_equal(state_of(0, 1), 1);
    assert_int_equal(state_of(1, 1), 1);
    assert_int_equal(state_of(UINT64_MAX, 1), UINT64_MAX);
}

static uint64_t advance(uint64_t x) {
    x ^= x << 13;
    x ^= x >> 7;
    return x ^ x << 17;
}

/* The state before x: each of the three steps undone. */
static uint64_t step_back(uint64_t x) {
    for (int i = 17; i < 64; i *= 2) x ^= x << i;
    for (int i = 7; i < 64; i *= 2) x ^= x >> i;
    for (int i = 13; i < 64; i *= 2) x ^= x << i;
    return x;
}

/* ---- the choice, written out again ------------------------------------------------- */

static int is_in(int id, const int *list, int n) {
    for (int i = 0; i < n; i++)
        if (list[i] == id) return 1;
    return 0;
}

static int choose_again(const float *l, int n, double temperature, double u,
                        const int *no, int n_no) {
    double max = -INFINITY, p[MAX_N], c = 0, total = 0;
    int last = -1;
    for (int i = 0; i < n; i++)
        if (!is_in(i, no, n_no) && l[i] >= max) {
            max = l[i];
            last = i;
        }
    if (temperature == 0) return last;
    for (int i = 0; i < n; i++) {
        p[i] = is_in(i, no, n_no) ? 0 : (double)expl(((double)l[i] - max) / temperature);
        total += p[i];
        last = p[i] > 0 ? i : last;
    }
    for (int i = 0; i < n; i++) {
        c += p[i];
        if (u * total < c) return i;
    }
    return last;
}

static int draw(const struct mg_ops *ops, uint64_t before, double temperature,
                const float *l, int n, const int *no, int n_no) {
    struct mg_sampler s = {.state = before, .temperature = temperature};
    int token = mg_sampler_draw(&s, ops, l, n, no, n_no, scratch);
    assert_int_equal(s.state, temperature == 0 ? before : advance(before));
    return token;
}

static int random_suppress(uint64_t *random, int n, int *no) {
    int n_no = random_int(random, 0, 3);
    n_no = n_no < n ? n_no : n - 1;
    for (int i = 0; i < n_no; i++) {
        do {
            no[i] = random_int(random, 0, n - 1);
        } while (is_in(no[i], no, i));
    }
    return n_no;
}

static void test_random_choices(void **state) {
    (void)state;
    static const double temperatures[] = {0, 0.01, 0.3, 0.5, 1, 2, 100};
    uint64_t random = 4;
    const struct mg_ops *ops;
    for (int round = 0; round < 40000; round++) {
        float l[MAX_N];
        int n = random_int(&random, 1, round % 50 ? 40 : MAX_N), no[4];
        for (int i = 0; i < n; i++) l[i] = (float)(3 * random_normal(&random));
        if (round % 5 == 0) /* ties */
            for (int i = 0; i < n; i++) l[i] = (float)random_int(&random, -1, 1);
        int n_no = random_suppress(&random, n, no);
        uint64_t before = random_u64(&random) | 1;
        double t = temperatures[random_int(&random, 0, 6)];
        double u = (double)advance(before) / 18446744073709551616.0;
        int want = choose_again(l, n, t, u, no, n_no);
        for (int i = 0; (ops = mg_ops_get(i)); i++)
            assert_int_equal(draw(ops, before, t, l, n, no, n_no), want);
    }
}

static void test_frequencies(void **state) {
    (void)state;
    const float l[4] = {0, 0.6931472f, 1.0986123f, 1.3862944f}; /* weights 1 2 3 4 */
    struct mg_sampler s;
    mg_sampler_init(&s, 1, 1, 0);
    int count[4] = {0};
    for (int i = 0; i < 100000; i++)
        count[mg_sampler_draw(&s, mg_ops_get(0), l, 4, NULL, 0, scratch)]++;
    for (int i = 0; i < 4; i++) /* five standard deviations */
        assert_in_range(count[i], 10000 * (i + 1) - 800, 10000 * (i + 1) + 800);
}

/* ---- edges ------------------------------------------------------------------------- */

#define FOR_EACH_ISA(ops) for (int isa_ = 0; ((ops) = mg_ops_get(isa_)); isa_++)

static void test_greedy_takes_the_last_of_equals(void **state) {
    (void)state;
    const struct mg_ops *ops;
    const float l[5] = {1, 7, 7, 7, -2}, zeros[3] = {-0.0f, 0.0f, -0.0f};
    FOR_EACH_ISA(ops) {
        assert_int_equal(draw(ops, 9, 0, l, 5, NULL, 0), 3);
        assert_int_equal(draw(ops, 9, 0, l, 5, (int[]){3}, 1), 2);
        assert_int_equal(draw(ops, 9, 0, l, 5, (int[]){3, 1, 2}, 3), 0);
        assert_int_equal(draw(ops, 9, 0, zeros, 3, NULL, 0), 2);
        assert_int_equal(draw(ops, 9, 0, zeros, 3, (int[]){2}, 1), 1);
        assert_int_equal(draw(ops, 9, 0, l, 1, NULL, 0), 0);
    }
}

static void test_u_of_one_and_nearly_zero(void **state) {
    (void)state;
    const struct mg_ops *ops;
    const float l[6] = {-90000, 0, 1, 0.5f, -90000, -90000};
    const uint64_t most = step_back(UINT64_MAX), least = step_back(1);
    assert_int_equal(advance(most), UINT64_MAX);
    assert_true((double)UINT64_MAX / 18446744073709551616.0 == 1);
    FOR_EACH_ISA(ops) {
        assert_int_equal(draw(ops, most, 1, l, 6, NULL, 0), 3); /* the last with p > 0 */
        assert_int_equal(draw(ops, most, 1, l, 6, (int[]){3}, 1), 2);
        assert_int_equal(draw(ops, least, 1, l, 6, NULL, 0), 1); /* the first */
        assert_int_equal(draw(ops, least, 1, l, 6, (int[]){1, 2}, 2), 3);
    }
}

/* u = 1/2 of two equals lies on their border: the second, as c_0 is not above it. */
static void test_u_on_a_border(void **state) {
    (void)state;
    const struct mg_ops *ops;
    const float l[4] = {2, 2, 2, 2};
    const uint64_t half = step_back(1ull << 63);
    FOR_EACH_ISA(ops) {
        assert_int_equal(draw(ops, half, 1, l, 2, NULL, 0), 1);
        assert_int_equal(draw(ops, half, 1, l, 4, NULL, 0), 2);
        assert_int_equal(draw(ops, half - 1, 1, l, 1, NULL, 0), 0);
    }
}

static void test_all_suppressed_but_one(void **state) {
    (void)state;
    const struct mg_ops *ops;
    const double temperatures[] = {0, 1e-300, 0.5, 1, 1e300};
    float l[5] = {3e38f, 100, -100, 3e38f, 3e38f};
    FOR_EACH_ISA(ops)
    for (size_t t = 0; t < 5; t++)
        for (int seed = 1; seed < 50; seed++) {
            uint64_t before = (uint64_t)seed * 0x9E3779B97F4A7C15u;
            assert_int_equal(
                draw(ops, before, temperatures[t], l, 5, (int[]){4, 0, 3, 1}, 4), 2);
        }
}

/* Next to nothing: only the largest are left, each of equals alike. Very much: all
 * alike. */
static void test_extreme_temperatures(void **state) {
    (void)state;
    const struct mg_ops *ops;
    const float l[6] = {-3e38f, 5, 4.9999995f, 5, 3e38f, 3e38f};
    FOR_EACH_ISA(ops) {
        int cold[6] = {0}, tiny[6] = {0}, hot[6] = {0};
        for (uint64_t i = 1; i <= 600; i++) {
            uint64_t before = i * 0x9E3779B97F4A7C15u;
            cold[draw(ops, before, 1e-300, l, 6, (int[]){4, 5}, 2)]++;
            tiny[draw(ops, before, DBL_TRUE_MIN, l, 6, NULL, 0)]++;
            hot[draw(ops, before, 1e300, l, 6, NULL, 0)]++;
        }
        assert_int_equal(cold[1] + cold[3], 600);
        assert_in_range(cold[1], 200, 400);
        assert_int_equal(tiny[4] + tiny[5], 600);
        for (int i = 0; i < 6; i++) assert_in_range(hot[i], 50, 150);
    }
}

static void test_a_logit_that_is_not_finite(void **state) {
    (void)state;
    const struct mg_ops *ops;
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    FOR_EACH_ISA(ops)
    for (int n = 1; n <= 40; n++)
        for (int at = 0; at < n; at++)
            for (int b = 0; b < 4; b++)
                for (int t = 0; t < 2; t++) {
                    float l[40] = {0};
                    struct mg_sampler s = {.state = 5, .temperature = t};
                    l[at] = bad[b];
                    /* suppressed or not: the arithmetic is broken */
                    int no = n > 1 ? at : 0, n_no = n > 1 && b % 2;
                    assert_int_equal(mg_sampler_draw(&s, ops, l, n, &no, n_no, scratch),
                                     -1);
                }
}

/* ---- exp --------------------------------------------------------------------------- */

/* Distance in units of the last place of want, subnormals included. */
static double ulps(double got, long double want) {
    int e;
    frexp((double)want, &e);
    e = e < -1021 ? -1021 : e;
    return (double)(fabsl(got - want) / ldexpl(1, e - 53));
}

static void test_exp_against_libm(void **state) {
    (void)state;
    const struct mg_ops *ops;
    uint64_t random = 6;
    double worst = 0;
    for (int round = 0; round < 3000; round++) {
        float l[16];
        double p[16],
            t = ldexp(1, random_int(&random, -6, 6)) * (1 + random_normal(&random));
        t = fabs(t) + 1e-3;
        for (int i = 0; i < 16; i++)
            l[i] = (float)(-fabs(random_normal(&random)) * (round % 2 ? 5 : 400));
        FOR_EACH_ISA(ops) {
            ops->weights(16, l, 0, t, p);
            for (int i = 0; i < 16; i++) {
                double error = ulps(p[i], expl((long double)(l[i] / t)));
                worst = error > worst ? error : worst;
                assert_true(error <= 1);
            }
        }
    }
    print_message("exp: at most %.3f ulp from libm's long double\n", worst);
}

static void test_exp_edges(void **state) {
    (void)state;
    const struct mg_ops *ops;
    const float l[8] = {0, -745.1f, -745.2f, -746, -1000, -3.4e38f, -708.4f, -1e-30f};
    FOR_EACH_ISA(ops) {
        double p[16] = {0};
        ops->weights(8, l, 0, 1, p);
        assert_true(p[0] == 1 && p[7] == 1);
        assert_true(p[1] == DBL_TRUE_MIN && p[2] == 0 && p[3] == 0 && p[4] == 0 &&
                    p[5] == 0);
        assert_true(p[6] > 0 && p[6] < DBL_MIN);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_random_choices),
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_greedy_takes_the_last_of_equals),
        cmocka_unit_test(test_u_of_one_and_nearly_zero),
        cmocka_unit_test(test_u_on_a_border),
        cmocka_unit_test(test_all_suppressed_but_one),
        cmocka_unit_test(test_extreme_temperatures),
        cmocka_unit_test(test_a_logit_that_is_not_finite),
        cmocka_unit_test(test_exp_against_libm),
        cmocka_unit_test(test_exp_edges),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
