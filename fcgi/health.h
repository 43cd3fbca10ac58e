/* SPDX-License-Identifier: Apache-2.0
 * health.h - --health SOCKET: asks a running service, as nginx would, whether a worker
 * answers. For the probes of containers and managers, which have no FastCGI client. */
#ifndef HEALTH_H
#define HEALTH_H

/* Ask for /health at "unix:/path", "/path" or "host:port". Prints one line and returns
 * the exit code: 0 a worker answered Ok, 64 no such form of address, 69 nobody listens
 * or none answers within three seconds, 76 the answer is another one. */
int health_ask(const char *address);

#endif
