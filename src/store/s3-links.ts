import { GetObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { RedirectConfig, S3Config } from '../config/config.ts'
import type { Digest } from '../oci/digest.ts'
import { createS3Client } from './s3-client.ts'
import { keyOf } from './s3-key.ts'

const maxUrls = 10_000

type Signed = { readonly url: Promise<string>; readonly until: number }

export type S3LinksOptions = {
  readonly config: S3Config
  readonly redirect: RedirectConfig
  readonly clock: Clock
  /** Signs with the same credentials. */
  readonly client: S3Client
}

/** Signed URLs for clients, under the address by which those reach the bucket. One URL serves for half of its life, so that everybody has at least the other half. */
export class S3Links {
  readonly #config: S3Config
  readonly #redirect: RedirectConfig
  readonly #clock: Clock
  readonly #client: S3Client
  readonly #urls = new LRUCache<Digest, Signed>({ max: maxUrls })

  constructor({ config, redirect, clock, client }: S3LinksOptions) {
    this.#config = config
    this.#redirect = redirect
    this.#clock = clock
    const endpoint = redirect.endpoint ?? config.endpoint
    this.#client = createS3Client({ ...config, endpoint }, { credentials: client.config.credentials })
  }

  /** Undefined: the credentials run out too soon for it. Rejects when there are none. */
  async urlOf(digest: Digest): Promise<string | undefined> {
    const known = this.#urls.get(digest)
    if (known && known.until > this.#clock.monotonic()) return await known.url
    const usableMs = await this.#usableMs()
    if (usableMs <= 0) return undefined
    // One signature for a crowd: whoever comes meanwhile waits for the same.
    const signed = { url: this.#sign(digest), until: this.#clock.monotonic() + usableMs }
    this.#urls.set(digest, signed)
    try {
      return await signed.url
    } catch (error) {
      this.#urls.delete(digest)
      throw error
    }
  }

  close(): void {
    this.#client.destroy()
  }

  /** How long a URL that is signed now can be handed out. One that was signed with temporary credentials ends with them. */
  async #usableMs(): Promise<number> {
    const halfMs = this.#redirect.ttlMs / 2
    const { expiration } = await this.#client.config.credentials()
    if (expiration === undefined) return halfMs
    return Math.min(halfMs, expiration.getTime() - Date.now() - halfMs)
  }

  #sign(digest: Digest): Promise<string> {
    const { bucket, prefix } = this.#config
    const command = new GetObjectCommand({ Bucket: bucket, Key: keyOf(prefix, digest) })
    return getSignedUrl(this.#client, command, { expiresIn: Math.floor(this.#redirect.ttlMs / 1000) })
  }
}
