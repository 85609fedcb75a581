// Package worker turns events into sent messages; each folder is one role.
package worker
