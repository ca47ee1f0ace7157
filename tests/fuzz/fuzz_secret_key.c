/* A .sec file, with a password. Under libFuzzer scrypt is held to little work. */
#include "fuzz.h"

#include "base/bytes.h"
#include "format/signature.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct error error = ERROR_INIT;
    struct secret_key key, again;
    struct public_key public;
    int result = secret_key_parse((const char *)bytes, size, "p", &key, &error);
    char *text, *signature;

    if (result) {
        must_explain(result, &error);
        return 0;
    }
    text = secret_key_format(&key, NULL);
    must(text && !secret_key_parse(text, strlen(text), NULL, &again, NULL) && !memcmp(&key, &again, sizeof(key)));
    free(text);
    /* Whatever is taken for a key is one: it signs, and its public half verifies. */
    secret_key_public(&key, &public);
    signature = signature_create(&key, bytes, size, "");
    must(signature);
    must(!signature_verify(signature, strlen(signature), bytes, size, &(struct trusted_keys){&public, 1}, NULL,
                           NULL, NULL));
    free(signature);
    return 0;
}
