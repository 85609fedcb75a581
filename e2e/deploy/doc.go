// Package deploy checks what the repository says about running in containers.
package deploy
