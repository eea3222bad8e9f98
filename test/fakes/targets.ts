import { parseReference, type Reference } from '../../src/oci/reference.ts'
import type { Target } from '../../src/routing/target.ts'

/** A repository of Docker Hub, or of another upstream, as a client addresses it. */
export function targetOf(repository: string, upstream = 'docker.io', requestedRepository = repository): Target {
  return { upstream, repository, requestedRepository, basePath: `/v2/${requestedRepository}`, ns: undefined }
}

export const reference = (text: string): Reference => parseReference(text)
