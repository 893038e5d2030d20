/* dovit.h in plain C99: it compiles, links, and its failures are statuses and sentences. */
#include <dovit.h>
#include <string.h>

#include "expect.h"

int main(void) {
  dovit_load_options loading = DOVIT_LOAD_OPTIONS_INIT;
  dovit_run_options running = DOVIT_RUN_OPTIONS_INIT;
  dovit_info info = DOVIT_INFO_INIT;
  dovit_session* session = (dovit_session*)&loading; /* must be overwritten */
  dovit_result* result = NULL;
  dovit_job* job = NULL;
  size_t count = 7;

  EXPECT(strlen(dovit_version()) >= 5);
  EXPECT(dovit_abi_version() == DOVIT_ABI_VERSION);
  EXPECT(dovit_check_abi(DOVIT_ABI_VERSION) == DOVIT_OK);
  EXPECT(strcmp(dovit_last_error(), "") == 0);
  EXPECT(dovit_check_abi(DOVIT_ABI_VERSION + 1) == DOVIT_USAGE);
  EXPECT(strstr(dovit_last_error(), "compile it with this library's header"));

  EXPECT(dovit_session_load("no/such/folder/", &loading, &session) == DOVIT_ERROR);
  EXPECT(session == NULL);
  EXPECT(
      strcmp(dovit_last_error(),
             "no/such/folder: not a dovit bundle (no bundle.json); make one with dovit-export --ckpt model.pth --out "
             "no/such/folder") == 0);
  EXPECT(dovit_session_load(NULL, NULL, &session) == DOVIT_USAGE);
  EXPECT(dovit_session_load("x", NULL, NULL) == DOVIT_USAGE);
  loading.size = 3;
  EXPECT(dovit_session_load("x", &loading, &session) == DOVIT_USAGE);
  EXPECT(strstr(dovit_last_error(), "start it with its _INIT"));
  loading.size = sizeof loading + sizeof(size_t); /* of a newer dovit.h */
  EXPECT(dovit_session_load("x", &loading, &session) == DOVIT_USAGE);
  EXPECT(strstr(dovit_last_error(), "use a newer library"));
  loading.size = offsetof(dovit_load_options, graph); /* of an older one: what follows is not read */
  loading.graph = 7;
  EXPECT(dovit_session_load("no/such/folder/", &loading, &session) == DOVIT_ERROR);

  EXPECT(dovit_session_run(NULL, NULL, &running, &result) == DOVIT_USAGE && result == NULL);
  EXPECT(dovit_session_enqueue(NULL, NULL, NULL, &job) == DOVIT_USAGE && job == NULL);
  EXPECT(dovit_job_wait(NULL, &result) == DOVIT_USAGE);
  EXPECT(dovit_session_info(NULL, &info) == DOVIT_USAGE);
  EXPECT(dovit_session_class_name(NULL, 0) == NULL);
  EXPECT(dovit_result_labels(NULL).data == NULL && dovit_result_logits(NULL, NULL) == NULL);
  EXPECT(dovit_result_kept(NULL, &count) == NULL && count == 0);
  dovit_result_free(NULL);
  dovit_job_free(NULL);
  dovit_session_free(NULL);
  return 0;
}
