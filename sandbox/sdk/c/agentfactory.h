/* What an agent in C may use of the node that runs it. One header, nothing to link.
 *
 *     #include "agentfactory.h"
 *
 *     char *process(const char *input) {
 *         af_log("info", "started");
 *         return af_format("%zu", strlen(input));
 *     }
 *     AF_MAIN(process)
 *
 * An agent is a WASI preview 1 command: its input is stdin, its output stdout. AF_MAIN reads the one and writes the
 * other. Everything af_ returns that is not const is malloc'd and freed by nobody: an instance lives for one call.
 *
 * Calls return JSON: {"ok": ...} or {"error": {"kind", "message"}}; kinds are denied, conflict, quota, not_found, invalid,
 * failed and budget. The functions below unpack the common ones and return NULL (or -1) for an error, which af_error()
 * then names. A module that calls any of them needs at least one grant, since the import leads to all of them.
 */
#ifndef AGENTFACTORY_H
#define AGENTFACTORY_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((import_module("agentfactory"), import_name("call"))) extern int32_t
af_import_call(const char *op, size_t op_len, const char *req, size_t req_len, char *resp, size_t resp_cap);

static char *af_last_error = NULL;

/* Why the last call that returned NULL or -1 did so: "kind: message". */
static inline const char *af_error(void) { return af_last_error ? af_last_error : ""; }

static inline void *af_alloc(size_t size) {
    void *memory = malloc(size);
    if (!memory) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

static inline char *af_copy(const char *from, size_t length) {
    char *copy = af_alloc(length + 1);
    memcpy(copy, from, length);
    copy[length] = 0;
    return copy;
}

/* printf into fresh memory. */
__attribute__((format(printf, 1, 2))) static inline char *af_format(const char *format, ...) {
    va_list first, second;
    va_start(first, format);
    va_copy(second, first);
    int length = vsnprintf(NULL, 0, format, first);
    va_end(first);
    char *text = af_alloc((size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, second);
    va_end(second);
    return text;
}

/* ---- JSON, as much as the calls need */

/* text as a JSON string, quotes included. */
static inline char *af_quote(const char *text) {
    char *quoted = af_alloc(6 * strlen(text) + 3), *at = quoted;
    *at++ = '"';
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\') {
            *at++ = '\\';
            *at++ = (char)*c;
        } else if (*c < 0x20) {
            at += snprintf(at, 7, "\\u%04x", *c);
        } else {
            *at++ = (char)*c;
        }
    }
    *at++ = '"';
    *at = 0;
    return quoted;
}

static inline const char *af_skip_space(const char *at) {
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') at++;
    return at;
}

/* The end of the JSON value that begins at `at`; the node's JSON is well formed. */
static inline const char *af_skip(const char *at) {
    at = af_skip_space(at);
    int depth = 0;
    do {
        if (*at == '"') {
            for (at++; *at && *at != '"'; at++)
                if (*at == '\\' && at[1]) at++;
            if (*at) at++;
        } else if (*at == '{' || *at == '[') {
            depth++;
            at++;
        } else if (*at == '}' || *at == ']') {
            depth--;
            at++;
        } else if (depth) {
            at++;
        } else {
            while (*at && !strchr(",}] \t\r\n", *at)) at++;
        }
    } while (depth && *at);
    return at;
}

/* The value of the member `name` of the JSON object at `json`, or NULL. It points into `json`. */
static inline const char *af_member(const char *json, const char *name) {
    char *quoted = af_quote(name);
    size_t length = strlen(quoted);
    const char *at = af_skip_space(json);
    if (*at != '{') return NULL;
    at = af_skip_space(at + 1);
    while (*at == '"') {
        const char *key = at;
        at = af_skip_space(af_skip(at));
        if (*at != ':') return NULL;
        at = af_skip_space(at + 1);
        if (!strncmp(key, quoted, length)) return at;
        at = af_skip_space(af_skip(at));
        if (*at == ',') at = af_skip_space(at + 1);
    }
    return NULL;
}

static inline char *af_put_utf8(char *to, uint32_t code) {
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xC0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *to++ = (char)(0xE0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
        *to++ = (char)(0x80 | (code & 0x3F));
    } else {
        *to++ = (char)(0xF0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3F));
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
        *to++ = (char)(0x80 | (code & 0x3F));
    }
    return to;
}

/* Four hexadecimal digits at `at`; anything else gives U+FFFD. */
static inline uint32_t af_hex4(const char *at) {
    uint32_t code = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) return 0xFFFD;
        code = code << 4 | digit;
    }
    return code;
}

/* The text of the JSON string at `json`, or NULL when it is another value. */
static inline char *af_text(const char *json) {
    json = json ? af_skip_space(json) : "";
    if (*json != '"') return NULL;
    size_t most = (size_t)(af_skip(json) - json);
    char *text = af_alloc(most + 1), *to = text;
    for (const char *at = json + 1; *at && *at != '"'; at++) {
        if (*at != '\\') {
            *to++ = *at;
            continue;
        }
        at++;
        if (!*at) break;
        if (*at == 'u') {
            if (strlen(at) < 5) break;
            uint32_t code = af_hex4(at + 1);
            at += 4;
            if (code >= 0xD800 && code < 0xDC00 && at[1] == '\\' && at[2] == 'u' && strlen(at) > 6) {
                code = 0x10000 + ((code - 0xD800) << 10) + (af_hex4(at + 3) - 0xDC00);
                at += 6;
            }
            to = af_put_utf8(to, code);
        } else {
            *to++ = *at == 'n' ? '\n' : *at == 't' ? '\t' : *at == 'r' ? '\r' : *at == 'b' ? '\b' : *at == 'f' ? '\f' : *at;
        }
    }
    *to = 0;
    return text;
}

/* ---- the node */

/* Any call by its name ("kv.get") with its JSON argument: the whole JSON answer. */
static inline char *af_call(const char *op, const char *request) {
    size_t capacity = 4096;
    char *answer = af_alloc(capacity + 1);
    size_t length = (size_t)af_import_call(op, strlen(op), request, strlen(request), answer, capacity);
    if (length > capacity) { /* an empty op writes the last answer again, and repeats nothing */
        free(answer);
        answer = af_alloc(length + 1);
        af_import_call("", 0, "", 0, answer, length);
    }
    answer[length] = 0;
    return answer;
}

/* Like af_call, and the JSON of what it answered; NULL for an error, which af_error() names. */
static inline const char *af_ask(const char *op, const char *request) {
    const char *answer = af_call(op, request), *error = af_member(answer, "error");
    if (!error) return af_member(answer, "ok");
    char *kind = af_text(af_member(error, "kind")), *message = af_text(af_member(error, "message"));
    af_last_error = af_format("%s: %s", kind ? kind : "failed", message ? message : "");
    return NULL;
}

/* The JSON of an answer: as it stands, or what a text holds. */
static inline char *af_document(const char *answer) {
    if (!answer) return NULL;
    char *text = af_text(answer);
    return text ? text : af_copy(answer, (size_t)(af_skip(answer) - answer));
}

/* Level: debug, info, warning or error. What is written to stderr goes to the log too, as info, and needs no grant. */
static inline void af_log(const char *level, const char *message) {
    af_call("log.log", af_format("{\"level\":%s,\"message\":%s}", af_quote(level), af_quote(message)));
}

/* The agent's configuration: the JSON text of an object. Needs no grant. */
static inline const char *af_config(void) {
    const char *config = getenv("AGENTFACTORY_CONFIG");
    return config ? config : "{}";
}

static inline const char *af_invocation_id(void) { return af_text(af_ask("context.invocation_id", "{}")); }

/* What is left: JSON {"fuel", "wall_ms", "memory_bytes", "log_bytes", "host_calls"}. */
static inline const char *af_budget(void) { return af_ask("context.budget", "{}"); }

/* The stored text and its version; NULL with version 0 when there is none, NULL with version -1 for an error. */
static inline char *af_kv_get(const char *key, int64_t *version) {
    const char *found = af_ask("kv.get", af_format("{\"key\":%s}", af_quote(key)));
    int64_t number = found ? 0 : -1;
    char *value = NULL;
    if (found && *found == '{') {
        number = strtoll(af_member(found, "version"), NULL, 10);
        value = af_text(af_member(found, "value"));
    }
    if (version) *version = number;
    return value;
}

/* expected: the version to replace, 0 for "must not exist yet", -1 for whatever is there. The new version, or -1. */
static inline int64_t af_kv_put(const char *key, const char *value, int64_t expected) {
    char *argument = expected < 0 ? af_format("{\"key\":%s,\"value\":%s}", af_quote(key), af_quote(value))
                                  : af_format("{\"key\":%s,\"value\":%s,\"expected\":%lld}", af_quote(key),
                                              af_quote(value), (long long)expected);
    const char *put = af_ask("kv.put", argument);
    return put ? strtoll(af_member(put, "version"), NULL, 10) : -1;
}

/* af_kv_put of an entry that is gone after so many seconds, from 1 on. */
static inline int64_t af_kv_put_for(const char *key, const char *value, int64_t expected, int64_t seconds) {
    char *version = expected < 0 ? "" : af_format(",\"expected\":%lld", (long long)expected);
    const char *put = af_ask("kv.put", af_format("{\"key\":%s,\"value\":%s,\"ttl_s\":%lld%s}", af_quote(key),
                                                 af_quote(value), (long long)seconds, version));
    return put ? strtoll(af_member(put, "version"), NULL, 10) : -1;
}

/* One page of keys that begin with prefix: JSON {"keys": [...], "cursor": text or null}. cursor: of the last page, or
 * NULL for the first. */
static inline const char *af_kv_list(const char *prefix, const char *cursor, unsigned limit) {
    return af_ask("kv.list", af_format("{\"prefix\":%s,\"cursor\":%s,\"limit\":%u}", af_quote(prefix),
                                       cursor ? af_quote(cursor) : "null", limit));
}

/* 0, or -1 for an error. */
static inline int af_kv_delete(const char *key) {
    return af_ask("kv.delete", af_format("{\"key\":%s}", af_quote(key))) ? 0 : -1;
}

/* The output of another agent, or NULL. */
static inline char *af_agents_invoke(const char *template_name, const char *input) {
    const char *answer =
        af_ask("agents.invoke", af_format("{\"template\":%s,\"input\":%s}", af_quote(template_name), af_quote(input)));
    return answer ? af_text(af_member(answer, "output")) : NULL;
}

/* request: JSON {"method", "path", ...}. JSON {"status", "headers", "body"}, or NULL. */
static inline char *af_http_fetch(const char *binding, const char *request) {
    return af_document(
        af_ask("http.fetch", af_format("{\"binding\":%s,\"request\":%s}", af_quote(binding), af_quote(request))));
}

/* request: JSON {"messages", ...}. JSON {"text", "model", "finish_reason", "usage", "cached"}, or NULL. */
static inline char *af_llm_complete(const char *binding, const char *request) {
    return af_document(
        af_ask("llm.complete", af_format("{\"binding\":%s,\"request\":%s}", af_quote(binding), af_quote(request))));
}

/* af_llm_complete in pieces: the stream's number, or -1. */
static inline int64_t af_llm_open(const char *binding, const char *request) {
    const char *number = af_ask(
        "llm.open", af_format("{\"binding\":%s,\"request\":%s}", af_quote(binding), af_quote(request)));
    return number ? strtoll(number, NULL, 10) : -1;
}

/* The next piece: JSON {"delta"}, the last one with "finish_reason", "usage", "model" and "cached" besides. NULL after
 * the last (af_error() is empty then), or for an error. */
static inline char *af_llm_next(int64_t stream) {
    af_last_error = NULL;
    char *piece = af_document(af_ask("llm.next", af_format("{\"number\":%lld}", (long long)stream)));
    return piece && strcmp(piece, "null") ? piece : NULL;
}

/* The rest is not wanted. 0, or -1 for an error. */
static inline int af_llm_close(int64_t stream) {
    return af_ask("llm.close", af_format("{\"number\":%lld}", (long long)stream)) ? 0 : -1;
}

/* ---- the command */

static inline char *af_read_input(void) {
    size_t length = 0, capacity = 65536;
    char *input = af_alloc(capacity + 1);
    for (size_t got; (got = fread(input + length, 1, capacity - length, stdin)) > 0;) {
        length += got;
        if (length == capacity) {
            capacity *= 2;
            input = realloc(input, capacity + 1);
            if (!input) exit(1);
        }
    }
    input[length] = 0;
    return input;
}

/* process(input) returns the output; NULL ends the invocation with an error, for which stderr says why. */
#define AF_MAIN(process)                                                                                               \
    int main(void) {                                                                                                   \
        char *output = process(af_read_input());                                                                      \
        if (!output) return 1;                                                                                         \
        fputs(output, stdout);                                                                                         \
        return 0;                                                                                                      \
    }

#endif
