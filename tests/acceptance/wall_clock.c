/* librdkafka waits by cnd_timedwait, which libfaketime leaves alone: the end of the wait, told by the changed clock, would
   be an hour away or past. This hands it to the function that libfaketime knows. */
#include <errno.h>
#include <pthread.h>
#include <threads.h>

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
  int error = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until);
  return error == 0 ? thrd_success : error == ETIMEDOUT ? thrd_timedout : thrd_error;
}
