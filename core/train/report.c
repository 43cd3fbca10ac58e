/* SPDX-License-Identifier: Apache-2.0
 * report.c - see report.h. On a terminal one line that is written over, else a plain line
 * every few seconds. */
#include "report.h"

#include "say.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void report_begin(struct report *r, int64_t step, int64_t steps, int64_t eval_least) {
    *r = (struct report){
        .steps = steps, .first_step = step, .last_loss = NAN, .last_eval = NAN};
    r->row_every = steps > 500 ? steps / 500 : 1;
    int64_t between = steps / 20 > eval_least ? steps / 20 : eval_least;
    int64_t rows = (between + r->row_every - 1) / r->row_every;
    r->eval_every = r->row_every * (rows > 0 ? rows : 1);
    r->tty = isatty(STDERR_FILENO);
    r->began = r->shown = now();
}

void report_free(struct report *r) {
    free(r->rows);
    r->rows = NULL;
}

int report_wants_eval(const struct report *r, int64_t step) {
    return step % r->eval_every == 0 || step == r->steps;
}

static int add_row(struct report *r, struct report_row row) {
    if (r->n_rows == r->cap_rows) {
        int cap = r->cap_rows * 2 + 256;
        struct report_row *p = realloc(r->rows, (size_t)cap * sizeof *p);
        if (!p) return -1;
        r->rows = p, r->cap_rows = cap;
    }
    r->rows[r->n_rows++] = row;
    return 0;
}

/* ---- the progress line ----------------------------------------------------------- */

static void format_time(double s, char out[48]) {
    long t = s < 0 ? 0 : (long)(s + 0.5);
    if (t >= 3600)
        snprintf(out, 48, "%ldh%02ldm", t / 3600, t / 60 % 60);
    else
        snprintf(out, 48, "%ldm%02lds", t / 60, t % 60);
}

static void show(struct report *r, int64_t step) {
    double t = now(), spent = t - r->began;
    char left[48], eval[64] = "";
    r->shown = t;
    format_time(spent / (double)(step - r->first_step) * (double)(r->steps - step), left);
    if (!isnan(r->last_eval))
        snprintf(eval, sizeof eval, "  eval %.4f = %.4f bits/byte", (double)r->last_eval,
                 (double)r->last_eval * r->bits);
    fprintf(stderr, "%sstep %lld/%lld  loss %.4f%s  %.0f tokens/s  %s left%s",
            r->tty ? "\r" : "", (long long)step, (long long)r->steps,
            (double)r->last_loss, eval, (double)r->tokens / (spent > 0 ? spent : 1e-9),
            left, r->tty ? "\x1b[K" : "\n");
}

int report_step(struct report *r, int64_t step, double loss, int tokens,
                double eval_loss) {
    int rc = 0;
    r->sum += loss, r->count++, r->tokens += tokens;
    if (!isnan(eval_loss)) r->last_eval = (float)eval_loss;
    if (step % r->row_every == 0 || step == r->steps) {
        r->last_loss = (float)(r->sum / (double)r->count);
        rc = add_row(r, (struct report_row){step, r->last_loss, (float)eval_loss});
        r->sum = 0, r->count = 0;
    }
    if (isnan(r->last_loss)) r->last_loss = (float)loss;
    if (step == r->steps || now() - r->shown >= (r->tty ? 0.1 : 10)) show(r, step);
    return rc;
}

void report_end(struct report *r) {
    if (r->tty && r->tokens) fputc('\n', stderr);
}

/* ---- files ----------------------------------------------------------------------- */

static void write_csv(const struct report *r, FILE *f) {
    fputs("step,loss,eval_loss,eval_bits_per_byte\n", f);
    for (int i = 0; i < r->n_rows; i++) {
        const struct report_row *row = &r->rows[i];
        fprintf(f, "%lld,%.9g,", (long long)row->step, (double)row->loss);
        if (isnan(row->eval_loss))
            fputs(",\n", f);
        else
            fprintf(f, "%.9g,%.6g\n", (double)row->eval_loss,
                    (double)row->eval_loss * r->bits);
    }
}

enum { WIDTH = 640, HEIGHT = 320, MARGIN = 40 };

static double plot_x(const struct report *r, int64_t step) {
    return MARGIN + (double)step / (double)r->steps * (WIDTH - 2 * MARGIN);
}

static double plot_y(double loss, double top) {
    return HEIGHT - MARGIN - loss / top * (HEIGHT - 2 * MARGIN);
}

static void draw_line(const struct report *r, FILE *f, int eval, double top) {
    fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"",
            eval ? "#c33" : "#36c");
    for (int i = 0; i < r->n_rows; i++) {
        double y = (double)(eval ? r->rows[i].eval_loss : r->rows[i].loss);
        if (!isnan(y))
            fprintf(f, "%.1f,%.1f ", plot_x(r, r->rows[i].step), plot_y(y, top));
    }
    fputs("\"/>\n", f);
}

static void write_svg(const struct report *r, FILE *f) {
    double top = 0.1;
    for (int i = 0; i < r->n_rows; i++) {
        if ((double)r->rows[i].loss > top) top = (double)r->rows[i].loss;
        if ((double)r->rows[i].eval_loss > top) top = (double)r->rows[i].eval_loss;
    }
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
            "<path d=\"M%d %dV%dH%d\" fill=\"none\" stroke=\"#888\"/>\n",
            WIDTH, HEIGHT, MARGIN, MARGIN, HEIGHT - MARGIN, WIDTH - MARGIN);
    for (int i = 0; i <= 4; i++)
        fprintf(f, "<text x=\"4\" y=\"%.1f\">%.2f</text>\n", plot_y(top * i / 4, top) + 4,
                top * i / 4);
    fprintf(
        f,
        "<text x=\"%d\" y=\"%d\">0</text>\n<text x=\"%d\" y=\"%d\" text-anchor=\"end\">"
        "%lld steps</text>\n",
        MARGIN, HEIGHT - MARGIN + 16, WIDTH - MARGIN, HEIGHT - MARGIN + 16,
        (long long)r->steps);
    fprintf(f,
            "<text x=\"%d\" y=\"24\" fill=\"#36c\">loss</text>\n<text x=\"%d\" y=\"24\" "
            "fill=\"#c33\">held-out loss</text>\n",
            MARGIN, MARGIN + 48);
    draw_line(r, f, 0, top);
    draw_line(r, f, 1, top);
    fputs("</svg>\n", f);
}

static int save_text(const struct report *r, struct save *s, const char *name,
                     void (*write)(const struct report *, FILE *)) {
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (f) write(r, f);
    int rc = f && fclose(f) == 0 ? save_bytes(s, name, text, len)
                                 : say_error(EX_OSERR, "out of memory for %s", name);
    free(text);
    return rc;
}

int report_save(const struct report *r, struct save *s) {
    int rc = save_text(r, s, "loss.csv", write_csv);
    return rc ? rc : save_text(r, s, "loss.svg", write_svg);
}

int report_load(struct report *r, const char *dir, int64_t step) {
    char path[PATH_MAX], line[128];
    snprintf(path, sizeof path, "%s/loss.csv", dir);
    FILE *f = fopen(path, "re");
    if (!f && errno == ENOENT) return 0;
    if (!f) return say_error(EX_NOINPUT, "cannot open %s: %s", path, strerror(errno));
    int rc = 0;
    while (!rc && fgets(line, sizeof line, f)) {
        long long at;
        char loss[32], eval[32] = "nan";
        if (sscanf(line, "%lld,%31[^,\n],%31[^,\n]", &at, loss, eval) < 2 || at > step)
            continue;
        struct report_row row = {at, strtof(loss, NULL), strtof(eval, NULL)};
        if (add_row(r, row) != 0) rc = say_error(EX_OSERR, "out of memory for %s", path);
        r->last_loss = row.loss;
        if (!isnan(row.eval_loss)) r->last_eval = row.eval_loss;
    }
    fclose(f);
    return rc;
}
