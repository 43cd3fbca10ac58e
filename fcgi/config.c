/* SPDX-License-Identifier: Apache-2.0
 * config.c - where values come from: defaults, file, environment, flags, in that order,
 * the later one wins. Remembers the origin of each for -T. A load that fails changes
 * nothing, so that a reload with a broken file leaves the old configuration in force. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "config_keys.h"
#include "machine.h"

struct origin {
    char text[300]; /* "default", "FILE:LINE", "environment NAME", "flag --key" */
    int line;       /* in the file being read, 0 = not from it */
};

/* One load under way; becomes `loaded` when it went well. */
struct load {
    struct config config;
    struct origin origin[CONFIG_MAX_KEYS];
    char *error;
    size_t error_size;
};

static struct load loaded;

/* ---- errors ---- */

/* One line without control characters, whatever was quoted in it. Returns code. */
static int fail(struct load *l, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int fail(struct load *l, int code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(l->error, l->error_size, fmt, args);
    va_end(args);
    for (char *p = l->error; *p; p++)
        if (iscntrl((unsigned char)*p)) *p = '?';
    return code;
}

/* "KIND WHAT", or "WHAT:LINE" for a file. */
static void set_origin(struct load *l, const struct config_key *key, int line,
                       const char *kind, const char *what) {
    struct origin *o = &l->origin[key - config_keys];
    o->line = line;
    if (line)
        snprintf(o->text, sizeof o->text, "%.280s:%d", what, line);
    else
        snprintf(o->text, sizeof o->text, "%s%s", kind, what);
}

/* ---- defaults ---- */

static int apply_defaults(struct load *l) {
    char why[400];
    for (int i = 0; i < config_n_keys; i++) {
        const struct config_key *key = &config_keys[i];
        if (config_key_set(key, &l->config, key->fallback, why, sizeof why))
            return fail(l, EX_SOFTWARE, "default of %s", why);
        set_origin(l, key, 0, "default", "");
    }
    return 0;
}

/* ---- file: `key = value`, # comments, "quotes" around a value that needs them ---- */

static char *trim(char *s) {
    while (isspace((unsigned char)*s)) s++;
    char *end = s + strlen(s);
    while (end > s && isspace((unsigned char)end[-1])) end--;
    *end = 0;
    return s;
}

/* Cut the comment and the quotes off a value in place. NULL if the quotes do not close.
 */
static char *read_value(char *s) {
    s = trim(s);
    if (*s == '"') {
        char *close = strchr(++s, '"');
        if (!close) return NULL;
        char *rest = trim(close + 1);
        if (*rest && *rest != '#') return NULL;
        *close = 0;
        return s;
    }
    for (char *p = s; *p; p++)
        if (*p == '#' && (p == s || isspace((unsigned char)p[-1]))) {
            *p = 0;
            break;
        }
    return trim(s);
}

static int apply_line(struct load *l, const char *path, int line, char *text) {
    char why[400];
    text = trim(text);
    if (!*text || *text == '#') return 0;
    char *equals = strchr(text, '=');
    if (!equals)
        return fail(l, EX_CONFIG, "%s:%d: \"%.60s\" is not of the form key = value", path,
                    line, text);
    *equals = 0;
    char *name = trim(text), *value = read_value(equals + 1);
    const struct config_key *key = config_key_find(name, strlen(name));
    if (!key)
        return fail(l, EX_CONFIG,
                    "%s:%d: unknown key \"%.60s\" (microgpt-fcgi --help lists them)",
                    path, line, name);
    int earlier = l->origin[key - config_keys].line;
    if (earlier)
        return fail(l, EX_CONFIG, "%s:%d: %s is already set on line %d", path, line,
                    key->name, earlier);
    if (!value)
        return fail(l, EX_CONFIG, "%s:%d: %s: quotes go around the whole value", path,
                    line, key->name);
    if (config_key_set(key, &l->config, value, why, sizeof why))
        return fail(l, EX_CONFIG, "%s:%d: %s", path, line, why);
    set_origin(l, key, line, "", path);
    return 0;
}

static int apply_file(struct load *l, const char *path) {
    FILE *f = fopen(path, "re");
    if (!f) return fail(l, EX_CONFIG, "%s: %s", path, strerror(errno));
    char *text = NULL;
    size_t room = 0;
    ssize_t len;
    int rc = 0, line = 0;
    while (!rc && (len = getline(&text, &room, f)) >= 0)
        if (strlen(text) != (size_t)len)
            rc = fail(l, EX_CONFIG, "%s:%d: a NUL byte", path, line + 1);
        else
            rc = apply_line(l, path, ++line, text);
    if (!rc && ferror(f)) rc = fail(l, EX_CONFIG, "%s: %s", path, strerror(errno));
    free(text);
    fclose(f);
    return rc;
}

/* ---- environment ---- */

static int apply_variable(struct load *l, const struct config_key *key,
                          const char *name) {
    char why[400];
    const char *value = getenv(name);
    if (!value || !*value) return 0;
    if (config_key_set(key, &l->config, value, why, sizeof why))
        return fail(l, EX_CONFIG, "environment %s: %s", name, why);
    set_origin(l, key, 0, "environment ", name);
    return 0;
}

/* MICROGPT_<KEY> for every key; MODEL_DIR is the old name of one. */
static int apply_environment(struct load *l) {
    int rc = apply_variable(l, config_key_find("model_dir", 9), "MODEL_DIR");
    for (int i = 0; i < config_n_keys && !rc; i++) {
        char name[64];
        snprintf(name, sizeof name, "MICROGPT_%s", config_keys[i].name);
        for (char *p = name; *p; p++) *p = (char)toupper((unsigned char)*p);
        rc = apply_variable(l, &config_keys[i], name);
    }
    return rc;
}

/* ---- flags ---- */

static int apply_flag(struct load *l, const char *flag, size_t len, const char *value) {
    char why[400];
    const struct config_key *key = config_key_find(flag, len);
    if (!key)
        return fail(l, EX_USAGE, "unknown option --%.*s (see --help)",
                    (int)(len < 60 ? len : 60), flag);
    if (!value) return fail(l, EX_USAGE, "--%s needs a value", key->name);
    if (config_key_set(key, &l->config, value, why, sizeof why))
        return fail(l, EX_USAGE, "%s", why);
    set_origin(l, key, 0, "flag --", key->name);
    return 0;
}

/* --help, --key=value or --key value; optarg is what follows the two dashes. */
static int apply_long(struct load *l, struct config_action *a, int argc, char **argv) {
    size_t len = strcspn(optarg, "=");
    const char *value = optarg[len] ? optarg + len + 1 : NULL;
    if (!value && !strcmp(optarg, "help")) return !(a->help = 1);
    if (!value && !strcmp(optarg, "version")) return !(a->version = 1);
    const char **question = len != 6                          ? NULL
                            : !strncmp(optarg, "reload", len) ? &a->reload
                            : !strncmp(optarg, "health", len) ? &a->health
                                                              : NULL;
    if (question) {
        *question = value ? value : optind < argc ? argv[optind++] : "";
        return 0;
    }
    if (!value && optind < argc && config_key_find(optarg, len)) value = argv[optind++];
    return apply_flag(l, optarg, len, value);
}

static int apply_flags(struct load *l, struct config_action *a, int argc, char **argv) {
    int c, rc = 0;
    optind = 0; /* glibc: start over */
    opterr = 0;
    while (!rc && (c = getopt(argc, argv, "+:c:n:s:m:tTVfh-:")) != -1) switch (c) {
        case 'c':
            if (snprintf(a->file, sizeof a->file, "%s", optarg) >= (int)sizeof a->file)
                rc = fail(l, EX_USAGE, "-c: the path is too long");
            break;
        case 'n': rc = apply_flag(l, "workers", 7, optarg); break;
        case 's': rc = apply_flag(l, "listen", 6, optarg); break;
        case 'm': rc = apply_flag(l, "model_dir", 9, optarg); break;
        case 't': a->test = 1; break;
        case 'T': a->dump = 1; break;
        case 'V': a->version = 1; break;
        case 'h': a->help = 1; break;
        case 'f': break; /* always in the foreground */
        case '-': rc = apply_long(l, a, argc, argv); break;
        case ':': rc = fail(l, EX_USAGE, "-%c needs a value", optopt); break;
        default: rc = fail(l, EX_USAGE, "unknown option -%c (see --help)", optopt);
        }
    if (!rc && optind < argc)
        rc = fail(l, EX_USAGE, "\"%.60s\" is not expected here (see --help)",
                  argv[optind]);
    return rc;
}

/* ---- all together ---- */

static int load_all(struct load *l, struct config_action *a, int argc, char **argv) {
    int rc =
        apply_flags(l, a, argc, argv); /* for -c; the values are applied again below */
    if (rc || a->help || a->version || a->reload || a->health) return rc;
    if ((rc = apply_defaults(l))) return rc;
    if (*a->file && (rc = apply_file(l, a->file))) return rc;
    if ((rc = apply_environment(l))) return rc;
    if ((rc = apply_flags(l, a, argc, argv))) return rc;
    if (!l->config.workers) {
        struct origin *o = &l->origin[config_key_find("workers", 7) - config_keys];
        l->config.workers = machine_cpus();
        size_t used = strlen(o->text);
        snprintf(o->text + used, sizeof o->text - used, ", auto");
    }
    return 0;
}

int config_load(struct config *c, struct config_action *a, int argc, char **argv,
                char *error, size_t error_size) {
    struct load *l = calloc(1, sizeof *l);
    memset(a, 0, sizeof *a);
    if (!l) {
        snprintf(error, error_size, "out of memory");
        return EX_OSERR;
    }
    l->error = error;
    l->error_size = error_size;
    int rc = load_all(l, a, argc, argv);
    if (!rc) {
        loaded = *l;
        *c = l->config;
    }
    free(l);
    return rc;
}

/* ---- output ---- */

void config_dump(FILE *out) {
    for (int i = 0; i < config_n_keys; i++) {
        char value[4200];
        config_key_print(&config_keys[i], &loaded.config, value, sizeof value);
        const char *quote = *value && !strpbrk(value, "# \t") ? "" : "\"";
        int n = fprintf(out, "%s = %s%s%s", config_keys[i].name, quote, value, quote);
        fprintf(out, "%*s# %s\n", n < 44 ? 44 - n : 1, "", loaded.origin[i].text);
    }
}

void config_usage(FILE *out) {
    fputs("microgpt-fcgi: text generation and chat behind nginx, by FastCGI\n\n"
          "  microgpt-fcgi [-c FILE] [-n WORKERS] [-s SOCKET] [-m MODEL_DIR] "
          "[--KEY=VALUE ...]\n\n"
          "  -c FILE       read the configuration FILE\n"
          "  -n WORKERS    --workers\n"
          "  -s SOCKET     --listen\n"
          "  -m MODEL_DIR  --model_dir\n"
          "  -t            check configuration, socket address and checkpoint, and exit\n"
          "  -T            print every effective value and where it came from, and exit\n"
          "  --reload PID  have that master reload, and exit when it is decided\n"
          "  --health SOCKET  ask a running service whether a worker answers, and exit\n"
          "  -V            version\n"
          "  -f            stay in the foreground (it always does)\n"
          "  -h, --help    this text\n\n"
          "Every key of the file is also an option, and a variable MICROGPT_KEY; a flag "
          "wins over\n"
          "the environment, that over the file, that over the default. Keys and "
          "defaults:\n\n",
          out);
    for (int i = 0; i < config_n_keys; i++)
        fprintf(out, "  %-14s %-30s %s\n", config_keys[i].name, config_keys[i].fallback,
                config_keys[i].help);
    fputs("\nSignals: TERM, INT, QUIT stop (a second one: now), HUP reload, USR1 reopen "
          "log_file,\n"
          "TTIN and TTOU one worker more or less.\n"
          "Exit codes: 0, 64 usage, 65 bad checkpoint, 66 no checkpoint, 69 address in "
          "use,\n"
          "70 internal, 71 system, 77 permission, 78 configuration.\n"
          "A socket from systemd (LISTEN_FDS) gets a master and workers; one on "
          "descriptor 0\n"
          "(spawn-fcgi, or a unit with StandardInput=socket) makes this process one "
          "plain worker.\n",
          out);
}
