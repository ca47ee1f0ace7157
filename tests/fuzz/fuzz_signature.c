/* A signature file, over the message "hi\n" and with the key of tests/golden/format/public-key/good-minisign.pub. */
#include "fuzz.h"

#include "format/signature.h"

static const char key_text[] = "RWQjuSEAtH91F5942jSh3yNd7Arb8vbgnU/svhNQ1VERNk00kwmWcwhH";

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    struct public_key key, signer;
    struct trusted_keys trusted = {&key, 1};
    char comment[SIGNATURE_COMMENT_MAX];
    int result;

    must(!public_key_parse(key_text, strlen(key_text), &key, NULL));
    result = signature_verify((const char *)bytes, size, "hi\n", 3, &trusted, &signer, comment, &error);
    if (result)
        must_explain(result, &error);
    else
        must(strlen(comment) < sizeof(comment) && !memcmp(&signer, &key, sizeof(key)));
    /* Nobody can have signed this, and there is no key to have done so. */
    must(signature_verify((const char *)bytes, size, "ho\n", 3, &trusted, NULL, NULL, NULL));
    trusted.count = 0;
    must(signature_verify((const char *)bytes, size, "hi\n", 3, &trusted, NULL, NULL, NULL));
    return 0;
}
