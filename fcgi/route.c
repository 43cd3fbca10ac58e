/* SPDX-License-Identifier: Apache-2.0
 * route.c - path, method, Accept, length and Content-Type, in the order of
 * microgpt-api(7). The path is SCRIPT_NAME, so that a web server may mount the API
 * anywhere (or PATH_INFO, where a CGI server sets it). */
#include "route.h"

#include <string.h>
#include <strings.h>

static const struct {
    const char *path;
    enum endpoint endpoint;
    const struct dialect *post; /* NULL: GET and HEAD */
    int get;                    /* a post that may be a GET as well */
} routes[] = {
    {"/microgpt/v1/generate", EP_GENERATE, &dialect_generate, 1},
    {"/microgpt/v1/chat", EP_CHAT, &dialect_chat, 0},
    {"/health", EP_HEALTH, NULL, 0},
    {"/microgpt/health", EP_HEALTH, NULL, 0},
    {"/metrics", EP_METRICS, NULL, 0},
    {"/microgpt/metrics", EP_METRICS, NULL, 0},
    {"/status", EP_STATUS, NULL, 0},
    {"/microgpt/status", EP_STATUS, NULL, 0},
};

static size_t skip_space(const char *s) {
    return strspn(s, " \t");
}

/* Length of s without trailing blanks, up to n. */
static size_t trimmed(const char *s, size_t n) {
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t')) n--;
    return n;
}

static int equals(const char *s, size_t n, const char *word) {
    return n == strlen(word) && strncasecmp(s, word, n) == 0;
}

/* application/json or application/<something>+json, parameters aside. */
static int is_json_type(const char *type) {
    static const char prefix[] = "application/", suffix[] = "+json";
    type += skip_space(type);
    size_t n = trimmed(type, strcspn(type, ";"));
    if (equals(type, n, "application/json")) return 1;
    return n > sizeof prefix - 1 + sizeof suffix - 1 &&
           strncasecmp(type, prefix, sizeof prefix - 1) == 0 &&
           strncasecmp(type + n - (sizeof suffix - 1), suffix, sizeof suffix - 1) == 0;
}

/* Is the weight among the parameters of one media range zero (q=0, q=0.0, ...)? */
static int is_refused(const char *s, size_t n) {
    const char *end = s + n;
    while (s < end) {
        const char *next = memchr(s, ';', (size_t)(end - s));
        size_t len = (size_t)((next ? next : end) - s);
        size_t at = skip_space(s);
        if (at + 2 < len && (s[at] == 'q' || s[at] == 'Q') && s[at + 1] == '=') {
            len = trimmed(s, len);
            for (at += 2; at < len; at++)
                if (s[at] != '0' && s[at] != '.') return 0;
            return 1;
        }
        if (!next) break;
        s = next + 1;
    }
    return 0;
}

/* Does Accept admit main/full? The most specific range that names it decides (RFC
 * 9110). */
static int admits(const char *accept, const char *full, const char *any) {
    int rank = 0, admitted = 0;
    for (const char *s = accept; *s;) {
        size_t len = strcspn(s, ","), type = strcspn(s, ";,");
        size_t at = skip_space(s), n = trimmed(s, type < len ? type : len);
        n = n > at ? n - at : 0;
        int r = equals(s + at, n, full)    ? 3
                : equals(s + at, n, any)   ? 2
                : equals(s + at, n, "*/*") ? 1
                                           : 0;
        if (r > rank) {
            rank = r;
            admitted = type >= len || !is_refused(s + type, len - type);
        }
        s += len + (s[len] == ',');
    }
    return admitted;
}

static struct route refuse(struct route r, int status, const char *error,
                           const char *header) {
    r.status = status;
    r.error = error;
    r.header = header;
    return r;
}

/* The path under a fingerprint, /microgpt/v1/m/FINGERPRINT/generate, as the one it stands
 * for; *pinned is the fingerprint. */
static const char *unpin(const char *path, const char **pinned) {
    static const char prefix[] = "/microgpt/v1/m/";
    size_t n = sizeof prefix - 1;
    *pinned = NULL;
    if (strncmp(path, prefix, n) != 0) return path;
    if (strspn(path + n, "0123456789abcdef") != MG_FINGERPRINT) return path;
    if (strcmp(path + n + MG_FINGERPRINT, "/generate") != 0) return path;
    *pinned = path + n;
    return routes[0].path;
}

static struct route check_get(struct route r, const struct conn *c) {
    const char *accept = conn_param(c, "HTTP_ACCEPT");
    r.post = 0;
    r.get = 1;
    r.accept_json = 1;
    if (accept[skip_space(accept)] != '\0' &&
        !admits(accept, "application/json", "application/*"))
        return refuse(r, 406, "the reply is application/json: accept it", "");
    return r;
}

static struct route check_post(struct route r, const struct conn *c) {
    const char *accept = conn_param(c, "HTTP_ACCEPT");
    r.accept_json = r.accept_sse = 1;
    if (accept[skip_space(accept)] != '\0') {
        r.accept_json = admits(accept, "application/json", "application/*");
        r.accept_sse = admits(accept, "text/event-stream", "text/*");
    }
    if (!r.accept_json && !r.accept_sse)
        return refuse(
            r, 406,
            "the reply is application/json, or text/event-stream with \"stream\": "
            "true: accept one of them",
            "");
    if (conn_body_too_large(c)) return refuse(r, 413, "the body is too large", "");
    if (!is_json_type(conn_param(c, "CONTENT_TYPE")))
        return refuse(r, 415, "send the body with Content-Type: application/json", "");
    return r;
}

/* The method of a route that generates. */
static struct route check_ask(struct route r, const struct conn *c, const char *method,
                              int may_get) {
    int is_get = r.head || strcmp(method, "GET") == 0;
    if (may_get && is_get) return check_get(r, c);
    if (r.pinned) return refuse(r, 405, "use GET or HEAD", "Allow: GET, HEAD\r\n");
    if (strcmp(method, "POST") == 0) return check_post(r, c);
    if (may_get)
        return refuse(r, 405, "use GET, HEAD or POST", "Allow: GET, HEAD, POST\r\n");
    return refuse(r, 405, "use POST", "Allow: POST\r\n");
}

struct route route_request(const struct conn *c) {
    struct route r = {.endpoint = EP_OTHER, .dialect = &dialect_generate, .header = ""};
    const char *method = conn_param(c, "REQUEST_METHOD"),
               *path = conn_param(c, "PATH_INFO");
    size_t i = 0, n = sizeof routes / sizeof *routes;
    if (!*path) path = conn_param(c, "SCRIPT_NAME");
    path = unpin(path, &r.pinned);
    while (i < n && strcmp(path, routes[i].path) != 0) i++;
    if (i == n)
        return refuse(
            r, 404, "no such path: POST /microgpt/v1/generate or /microgpt/v1/chat", "");
    r.endpoint = routes[i].endpoint;
    r.post = routes[i].post != NULL;
    r.head = strcmp(method, "HEAD") == 0;
    if (r.post) {
        r.dialect = routes[i].post;
        return check_ask(r, c, method, routes[i].get);
    }
    if (!r.head && strcmp(method, "GET") != 0)
        return refuse(r, 405, "use GET or HEAD", "Allow: GET, HEAD\r\n");
    return r;
}
