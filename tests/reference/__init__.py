"""The specification: every formula in plain numpy, float64, loops allowed. Never imported by the
package."""
