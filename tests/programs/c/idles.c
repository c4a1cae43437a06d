/* A thread that has allocated a little and then does nothing, while another has filled buffers. */
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static sem_t done, end;
static void *kept[10];
static void *idle(void *unused)
{
    for (int i = 0; i < 10; i++)
        kept[i] = malloc(77001);
    sem_post(&done);
    sem_wait(&end);
    return unused;
}
int main(void)
{
    pthread_t thread;
    char byte;
    sem_init(&done, 0, 0);
    sem_init(&end, 0, 0);
    if (pthread_create(&thread, 0, idle, 0))
        return 1;
    sem_wait(&done);
    for (int i = 0; i < 60000; i++) free(malloc(64));
    printf("idle\n"); fflush(stdout);
    if (read(0, &byte, 1) < 0) return 1;
    sem_post(&end);
    pthread_join(thread, 0);
    return 0;
}
