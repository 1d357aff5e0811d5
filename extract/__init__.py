"""From vendors' APIs to the landing: sources, the client, and files of responses as received."""
