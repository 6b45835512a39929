"""What measurements share: folders that resume, images by name, the machine."""
