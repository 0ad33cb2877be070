/* Asks everything that the grants of its template open; what it returns is compared in test_sdk_outside.py. */
#include "agentfactory.h"

static char *kind(int is_refused) {
    const char *error = af_error(), *end = strchr(error, ':');
    return is_refused && end ? af_copy(error, (size_t)(end - error)) : "done";
}

char *process(const char *input) {
    char *about = af_format("{\"about\":%s}", af_quote(input));
    char *posted = af_http_fetch("api", af_format("{\"method\":\"POST\",\"path\":\"/v1/works\",\"query\":%s,\"body\":%s}",
                                                  about, af_quote(about)));
    char *missing = af_http_fetch("api", "{\"method\":\"GET\",\"path\":\"/v1/missing\"}");
    char *complete = af_llm_complete("default", af_format("{\"messages\":[{\"role\":\"user\",\"content\":%s}]}",
                                                          af_quote(af_format("about %s", input))));
    if (!posted || !missing || !complete) {
        fprintf(stderr, "%s\n", af_error());
        return NULL;
    }
    int64_t stream = af_llm_open("default", "{\"messages\":[{\"role\":\"user\",\"content\":\"one two three\"}]}");
    char *text = "", *finish = "";
    int pieces = 0;
    for (char *piece; (piece = af_llm_next(stream)); pieces++) {
        char *reason = af_text(af_member(piece, "finish_reason"));
        text = af_format("%s%s", text, af_text(af_member(piece, "delta")));
        if (reason) finish = reason;
    }
    if (af_llm_close(stream) || *af_error()) fprintf(stderr, "%s\n", af_error());
    char *refused = af_llm_complete("default",
                                    "{\"model\":\"forbidden\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}");
    char *refusal = kind(!refused);
    char *denial = kind(!af_http_fetch("api", "{\"method\":\"GET\",\"path\":\"/v2\"}"));
    af_kv_put_for("kept", input, -1, 60);
    if (!strstr(af_kv_list("ke", NULL, 10), "\"kept\"")) return NULL;
    char *kept = af_kv_get("kept", NULL);
    char *conflict = kind(af_kv_put_for("kept", "x", 0, 1) < 0);
    return af_format("{\"posted\":%s,\"missing\":%ld,\"complete\":%s,\"tokens\":%ld,\"pieces\":%s,\"stream\":%s,"
                     "\"finish\":%s,\"refused\":%s,\"denied\":%s,\"kept\":%s,\"conflict\":%s}",
                     af_text(af_member(posted, "body")), strtol(af_member(missing, "status"), NULL, 10),
                     af_quote(af_text(af_member(complete, "text"))),
                     strtol(af_member(af_member(complete, "usage"), "output_tokens"), NULL, 10),
                     pieces > 0 ? "true" : "false", af_quote(text), af_quote(finish), af_quote(refusal),
                     af_quote(denial), af_quote(kept), af_quote(conflict));
}
AF_MAIN(process)
