export type RecordLimits = { readonly links: number; readonly tags: number }

/**
 * With names of usual length a link takes about 320 bytes of the index file, its own indexes included, and a tag about 270: together less
 * than 400 MB at the most. A million links are 50,000 images with 20 blobs each.
 */
export const defaultRecordLimits: RecordLimits = { links: 1_000_000, tags: 200_000 }
